//! How deep a stack the transpiler needs.
//!
//! It follows the nesting of the code, and would take the process with it where the stack ends. So the tokens are looked at
//! first. And should the transpiler see other tokens than this module does: every level of nesting takes a token, so there are
//! no more levels than tokens, and up to [`LEVELS`] of them the stack is deep enough in any case.

use deno_ast::swc::common::BytePos;
use deno_ast::swc::common::input::StringInput;
use deno_ast::swc::lexer::token::{BinOpToken, Token};
use deno_ast::swc::lexer::{Lexer, Syntax, TsSyntax};

/// What a level takes of the stack at most, measured.
const LEVEL: usize = 4 << 10;

/// The largest stack. It is taken as it is touched.
const LARGEST_STACK: usize = 1 << 30;

/// So many levels fit in any case.
const LEVELS: usize = LARGEST_STACK / LEVEL;

/// The transpiler's time and memory grow with the square of this.
const SCOPES: usize = 250;

/// The stack that [`crate::transpile::transpile`] needs for files of these texts.
pub(crate) fn stack_for<'a>(texts: impl Iterator<Item = &'a str>) -> usize {
    let levels = texts.map(most_tokens).max().unwrap_or(0).min(LEVELS);
    levels * LEVEL + (8 << 20)
}

/// Fails when the code may be nested deeper than any stack allows, or in more brackets than the transpiler can cope with.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let nesting = Nesting::of(text);
    if nesting.scopes > SCOPES {
        return Err(format!("the code is nested more than {SCOPES} brackets and functions deep"));
    }
    if nesting.levels > LEVELS {
        return Err(format!("an expression or statement has more than {LEVELS} parts"));
    }
    Ok(())
}

/// No fewer than the tokens of the code: words, and everything that is neither word nor space.
fn most_tokens(text: &str) -> usize {
    let mut in_word = false;
    let begins_token = |c: &char| {
        let word = c.is_alphanumeric() || matches!(c, '_' | '$');
        let begins = if word { !in_word } else { !c.is_whitespace() };
        in_word = word;
        begins
    };
    text.chars().filter(begins_token).count()
}

/// How deep code is nested.
#[derive(Default)]
struct Nesting {
    /// No fewer than its levels: in every bracket that is open, the tokens since the last comma or semicolon.
    levels: usize,
    /// Brackets and arrow functions in each other.
    scopes: usize,
}

/// What one open bracket holds so far.
#[derive(Default, Clone, Copy)]
struct Bracket {
    tokens: usize,
    arrows: usize,
}

impl Nesting {
    fn of(text: &str) -> Self {
        let end = u32::try_from(text.len()).map_or(u32::MAX, |length| length.saturating_add(1));
        let syntax = Syntax::Typescript(TsSyntax { decorators: true, ..TsSyntax::default() });
        let input = StringInput::new(text, BytePos(1), BytePos(end));
        let (mut open, mut here, mut outside) = (Vec::new(), Bracket::default(), Bracket::default());
        let mut most = Self::default();
        for token in Lexer::new(syntax, Default::default(), input, None) {
            match token.token {
                Token::LParen | Token::LBracket | Token::LBrace | Token::DollarLBrace => {
                    here.tokens += 1;
                    outside = outside.with(here);
                    open.push(here);
                    here = Bracket::default();
                }
                Token::RParen | Token::RBracket | Token::RBrace => {
                    here = open.pop().unwrap_or_default();
                    outside = outside.without(here);
                }
                Token::Semi | Token::Comma => here = Bracket::default(),
                Token::Arrow => here.arrows += 1,
                // Types are nested in these.
                Token::BinOp(BinOpToken::Lt) => here.tokens += 2,
                _ => here.tokens += 1,
            }
            let total = outside.with(here);
            most.levels = most.levels.max(total.tokens + total.arrows);
            most.scopes = most.scopes.max(open.len() + total.arrows);
            if most.levels > LEVELS || most.scopes > SCOPES {
                break;
            }
        }
        most
    }
}

impl Bracket {
    fn with(self, other: Self) -> Self {
        Self { tokens: self.tokens + other.tokens, arrows: self.arrows + other.arrows }
    }

    fn without(self, other: Self) -> Self {
        Self { tokens: self.tokens - other.tokens, arrows: self.arrows - other.arrows }
    }
}
