//! Selectors of labels and fields: each is refused, or chooses among objects of every kind.
#![no_main]

use arbitrary::Unstructured;
use berth_model::selector::Selector;
use berth_model_fuzz::{kind, object};
use libfuzzer_sys::fuzz_target;

/// What selectors are made of; a fuzzer would be long in finding them.
const PARTS: &[&str] = &[
    "app",
    "tier.example/x",
    "=",
    "==",
    "!=",
    "!",
    " in ",
    " notin ",
    "(",
    ")",
    ",",
    "web",
    "front",
    " ",
    "exists",
    "metadata.name",
    "metadata.namespace",
    "status.phase",
    "type",
    "\\",
    "\u{0}",
];

fuzz_target!(|bytes: &[u8]| {
    let mut from = Unstructured::new(bytes);
    let Ok(kind) = kind(&mut from) else { return };
    let (Ok(labels), Ok(fields)) = (words(&mut from), words(&mut from)) else { return };
    if let Ok(selector) = Selector::parse(kind, &labels, &fields)
        && let Ok(object) = object(kind, &mut from)
    {
        selector.matches(&object);
    }
});

fn words(from: &mut Unstructured<'_>) -> arbitrary::Result<String> {
    let mut text = String::new();
    for _ in 0..from.int_in_range(0..=12)? {
        match from.ratio(7_u8, 8)? {
            true => text.push_str(from.choose(PARTS)?),
            false => text.push(from.arbitrary()?),
        }
    }
    Ok(text)
}
