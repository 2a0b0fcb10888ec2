//! Bodies as they come off the wire, as JSON and as protobuf: each is refused, or read and judged by its kind.
#![no_main]

use berth_model::kinds::{Request, by_kind};
use berth_model::{protobuf, repeated};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(read) = repeated::read(bytes) {
        assert_eq!(serde_json::from_slice::<Value>(bytes).ok(), Some(read.value.clone()));
        judged(read.value);
    }
    // Without the envelope, as libFuzzer would have to find its four bytes first.
    for body in [bytes.to_vec(), [b"k8s\0", bytes].concat()] {
        if let Ok(object) = protobuf::read(&body) {
            judged(object);
        }
    }
});

fn judged(object: Value) {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or("").to_owned();
    if let Some(kind) = by_kind(&text("apiVersion"), &text("kind")) {
        drop(kind.admit(object, &Request::Create));
    }
}
