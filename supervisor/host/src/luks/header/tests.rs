use serde_json::json;

use super::*;

/// What the library writes when it is asked for what we ask it for.
fn made() -> Value {
    json!({
        "keyslots": {"0": {
            "type": "luks2", "key_size": 64, "af": {"type": "luks1", "stripes": 4000, "hash": "sha256"},
            "area": {"type": "raw", "offset": "32768", "size": "258048", "encryption": "aes-xts-plain64", "key_size": 64},
            "kdf": {"type": "pbkdf2", "hash": "sha256", "iterations": 1000, "salt": "c2FsdA=="}
        }},
        "tokens": {},
        "segments": {"0": {
            "type": "crypt", "offset": "1048576", "size": "dynamic", "iv_tweak": "0",
            "encryption": "aes-xts-plain64", "sector_size": 4096
        }},
        "digests": {"0": {
            "type": "pbkdf2", "keyslots": ["0"], "segments": ["0"], "hash": "sha256", "iterations": 1000,
            "salt": "c2FsdA==", "digest": "ZGlnZXN0"
        }},
        "config": {"json_size": "12288", "keyslots_size": "1015808"}
    })
}

/// One copy with a valid checksum, whatever it says.
fn copy(at: usize, text: &str) -> Vec<u8> {
    let mut copy = vec![0; COPY];
    copy[..6].copy_from_slice(MAGIC[at]);
    copy[7] = 2;
    copy[8..16].copy_from_slice(&(COPY as u64).to_be_bytes());
    copy[72..78].copy_from_slice(b"sha256");
    copy[256..264].copy_from_slice(&((at * COPY) as u64).to_be_bytes());
    copy[BINARY..BINARY + text.len()].copy_from_slice(text.as_bytes());
    summed(copy)
}

fn summed(mut copy: Vec<u8>) -> Vec<u8> {
    copy[448..512].fill(0);
    let sum = digest(&SHA256, &copy);
    copy[448..480].copy_from_slice(sum.as_ref());
    copy
}

fn both(value: &Value) -> Vec<u8> {
    let text = value.to_string();
    [copy(0, &text), copy(1, &text)].concat()
}

fn told(bytes: &[u8]) -> String {
    check_bytes(bytes).map_or_else(|error| error.to_string(), |()| "fine".to_owned())
}

#[test]
fn a_header_as_it_is_made_is_fine_and_so_is_one_with_one_damaged_copy() {
    let bytes = both(&made());
    assert_eq!(told(&bytes), "fine");
    for at in [0, 100, BINARY + 7, COPY, COPY + 470, COPY + BINARY + 300] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert_eq!(told(&changed), "fine", "{at}");
    }
    let mut changed = bytes;
    changed[0] ^= 1;
    changed[COPY + 470] ^= 1;
    assert_eq!(told(&changed), "there is no LUKS2 header with a valid checksum");
    changed.fill(0);
    assert_eq!(told(&changed), "there is no LUKS2 header with a valid checksum");
}

#[test]
fn whatever_else_a_header_says_under_a_valid_checksum_is_named() {
    let slot = made()["keyslots"]["0"].clone();
    let argon = json!({"type": "argon2id", "time": 4, "memory": 1_u64 << 32, "cpus": 4, "salt": "c2FsdA=="});
    for (place, hostile, said) in [
        ("/segments/0/offset", json!("4096"), "the place where the data begins is \"4096\" and should be \"1048576\""),
        ("/segments/0/offset", json!("0"), "the place where the data begins"),
        ("/segments/0/size", json!("4096"), "the size of the data is \"4096\" and should be \"dynamic\""),
        ("/segments/0/iv_tweak", json!("8"), "the number of the first sector"),
        ("/segments/0/encryption", json!("cipher_null-ecb"), "the cipher is \"cipher_null-ecb\""),
        ("/segments/0/encryption", json!("a".repeat(9000)), "and should be \"aes-xts-plain64\""),
        ("/segments/0/sector_size", json!(512), "the sector size is \"512\" and should be \"4096\""),
        ("/segments/0/type", json!("linear"), "the kind of its data is \"linear\""),
        ("/segments/1", json!({"type": "linear"}), "unknown field `1`"),
        ("/segments/0/integrity", json!({"type": "none"}), "unknown field `integrity`"),
        ("/keyslots/1", slot, "unknown field `1`"),
        ("/keyslots/0/kdf/iterations", json!(u32::MAX), "the rounds of the derivation are 4294967295"),
        ("/keyslots/0/kdf/iterations", json!(-1), "its text is none of ours"),
        ("/keyslots/0/kdf/type", json!("argon2id"), "the derivation of the key slot's key"),
        ("/keyslots/0/kdf", argon, "unknown field `time`"),
        ("/keyslots/0/key_size", json!(32), "the size of the key is \"32\""),
        ("/keyslots/0/area/offset", json!("0"), "whether the key slot lies where key slots are"),
        ("/keyslots/0/area/size", json!("18446744073709551615"), "whether the key slot lies where key slots are"),
        ("/keyslots/0/area/encryption", json!("cipher_null-ecb"), "the cipher of the key slot"),
        ("/keyslots/0/af/stripes", json!(1_000_000_000), "the number of the key's pieces"),
        ("/digests/0/iterations", json!(u32::MAX), "the rounds of the digest are 4294967295"),
        ("/digests/0/segments", json!([]), "what the digest is for"),
        ("/tokens/0", json!({"type": "systemd-tpm2", "keyslots": ["0"]}), "the number of tokens is \"1\""),
        ("/config/requirements", json!({"mandatory": ["online-reencrypt"]}), "unknown field `requirements`"),
        ("/config/json_size", json!("4190208"), "the size of its text"),
    ] {
        let mut value = made();
        let (parent, last) = place.rsplit_once('/').unwrap();
        value.pointer_mut(parent).unwrap()[last] = hostile;
        let told = told(&both(&value));
        assert!(
            told.starts_with("copy 1 of the header is not as it was made: ") && told.contains(said),
            "{place}: {told}"
        );
        assert!(told.len() < 400, "{place}: {told}");
    }
}

#[test]
fn a_second_copy_is_looked_at_whatever_the_first_is() {
    let mut hostile = made();
    hostile["segments"]["0"]["offset"] = json!("2097152");
    let fine = copy(0, &made().to_string());
    let mut newer = copy(1, &hostile.to_string());
    newer[23] = 9;
    let newer = summed(newer);
    for first in [fine, vec![0; COPY]] {
        let told = told(&[first, newer.clone()].concat());
        assert!(told.starts_with("copy 2 of the header is not as it was made: the place where"), "{told}");
    }
}

#[test]
fn another_length_checksum_or_owner_is_refused() {
    let with = |at: usize, bytes: &[u8]| {
        let mut first = copy(0, &made().to_string());
        first[at..at + bytes.len()].copy_from_slice(bytes);
        told(&[summed(first), vec![0; COPY]].concat())
    };
    assert!(with(8, &(4_u64 << 20).to_be_bytes()).contains("it has 4194304 bytes and should have 16384"));
    assert!(with(72, b"sha512").contains("its checksum is \"sha512\""));
    assert!(with(208, b"other").contains("it belongs to another program"));
    // As the library sees it, that is none.
    assert!(with(256, &[1]).contains("there is no LUKS2 header"));
}

#[test]
fn text_that_is_full_of_nesting_or_none_at_all_ends_in_an_error() {
    let deep = "[".repeat(COPY - BINARY);
    let keys = r#"{"keyslots":"#.repeat(1000);
    for text in ["", "{}", "null", "\u{1}", deep.as_str(), keys.as_str()] {
        let told = told(&[copy(0, text), copy(1, text)].concat());
        assert!(told.contains("its text is none of ours"), "{told}");
    }
}
