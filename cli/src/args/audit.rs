//! The command line of `manifold audit`.

use std::path::PathBuf;

use clap::Args;

use super::UseArgs;

/// Run remembered requests again, and report outcomes that differ
///
/// An image whose outcome depends on anything but its arguments, such as a clock, is no pure function,
/// and what is remembered of it cannot be trusted. Each request is run alone, with the outcomes of
/// what it wants from the memo. The exit status is 4 if any differs.
#[derive(Debug, Args)]
#[command(mut_arg("recompute", |argument| argument.hide(true)))]
#[command(mut_arg("no_store", |argument| argument.hide(true)))]
#[command(mut_arg("no_pin", |argument| argument.hide(true)))]
#[command(mut_arg("no_provenance", |argument| argument.hide(true)))]
pub(crate) struct Audit {
    /// Ids of requests, or the first digits of them [default: a sample of all that are remembered]
    pub(crate) requests: Vec<String>,
    /// The share of the remembered requests to run (`1%`, `0.5%`, `100%`), at least one
    #[arg(long, value_name = "PERCENT", default_value = "1%", value_parser = share)]
    pub(crate) share: f64,
    /// Choose another sample with another number
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Directory or repository that was folded, so that its files can be read again
    #[arg(long, value_name = "PATH")]
    pub(crate) input: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) using: UseArgs,
}

/// Parses a percentage. Returns the share.
fn share(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent / 100.0),
        _ => Err("expected a percentage above 0% and up to 100%".to_owned()),
    }
}
