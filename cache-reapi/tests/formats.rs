//! Addresses, headers and packs.

use manifold_cache_reapi::{CacheAddress, CacheError, CacheOptions, Pack, PackError};
use manifold_runtime_api::{Object, ObjectId, ObjectRef};
use proptest::prelude::*;

#[test]
fn addresses_are_told_from_what_is_none() {
    for (text, shown) in [
        ("grpc://localhost:8980", "grpc://localhost:8980"),
        ("grpc://[::1]:8980/", "grpc://[::1]:8980"),
        ("grpcs://cache.example.com", "grpcs://cache.example.com:443"),
        ("grpcs://cache.example.com:8443/a/b", "grpcs://cache.example.com:8443/a/b"),
    ] {
        assert_eq!(text.parse::<CacheAddress>().unwrap().to_string(), shown);
    }
    for text in ["", "cache", "http://h:1", "grpc://h", "grpc://", "grpc://h:1?a", "grpc://a b:1"] {
        let error = text.parse::<CacheAddress>().unwrap_err();
        assert!(matches!(error, CacheError::Address { .. }), "{error}");
    }
    let error = "grpc://user:secret@host:1".parse::<CacheAddress>().unwrap_err().to_string();
    assert!(error.contains("header") && !error.contains("secret"), "{error}");
}

#[test]
fn headers_are_checked_and_never_shown() {
    let options = CacheOptions::new("grpc://h:1".parse().unwrap());
    let with = options.clone().header("Authorization", "Bearer secret").unwrap();
    assert!(!format!("{with:?}").contains("secret"));
    for (name, value) in [("", "a"), ("a b", "a"), ("a", "line\nsecret")] {
        let error = options.clone().header(name, value).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}

fn pack() -> Pack {
    let mut pack = Pack::default();
    for number in 0..20 {
        let object = Object::blob(format!("outcome {}", number % 7));
        let request = Object::blob(format!("request {number}")).id();
        pack.entries.push((request, ObjectRef::blob(object.id())));
        pack.objects.insert(object.id(), object);
    }
    let tree = Object::encoded_tree("");
    pack.entries.push((ObjectId::empty_tree(), ObjectRef::tree(tree.id())));
    pack.objects.insert(tree.id(), tree);
    pack
}

#[test]
fn packs_are_read_as_they_were_written() {
    let (pack, bytes) = (pack(), pack().encode());
    let read = Pack::decode(&bytes, 1 << 20).unwrap();
    assert_eq!(read.entries, pack.entries);
    assert_eq!(read.objects, pack.objects);
    assert_eq!(read.encode(), bytes);
    let plain = pack.encode_plain();
    let read = Pack::decode(&plain, 1 << 20).unwrap();
    assert_eq!((&read.entries, &read.objects), (&pack.entries, &pack.objects));
    for bytes in [bytes, plain] {
        let bound = Pack::decode(&bytes, 100).unwrap_err();
        assert!(matches!(bound, PackError::TooLarge { bound: 100 }));
    }
    assert!(matches!(Pack::decode(b"PACK", 100), Err(PackError::Foreign)));
}

proptest! {
    /// Damage is an error, or makes a pack whose objects have the ids of their content.
    #[test]
    fn damaged_packs_are_errors(is_plain: bool, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), length in any::<prop::sample::Index>()) {
        let mut bytes = if is_plain { pack().encode_plain() } else { pack().encode() };
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        bytes.truncate(length.index(bytes.len()) + 1);
        if let Ok(pack) = Pack::decode(&bytes, 1 << 20) {
            for (id, object) in pack.objects {
                prop_assert_eq!(object.id(), id);
            }
        }
    }

    /// The same within the compressed part, whose checksum would find most damage.
    #[test]
    fn malformed_packs_are_errors(content in prop::collection::vec(any::<u8>(), 0..200), entries in 0_u32..4) {
        use std::io::Write as _;
        let mut encoder = flate2::write::ZlibEncoder::new(b"manifold pack 1\n".to_vec(), flate2::Compression::fast());
        encoder.write_all(&entries.to_le_bytes()).unwrap();
        encoder.write_all(&content).unwrap();
        let _ = Pack::decode(&encoder.finish().unwrap(), 1 << 20);
    }
}
