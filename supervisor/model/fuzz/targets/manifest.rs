//! Manifests of every kind: each is refused by field, or admitted; and what was admitted stays what it is when it is
//! sent again.
#![no_main]

use arbitrary::Unstructured;
use berth_model::kinds::Request;
use berth_model_fuzz::{kind, object};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut from = Unstructured::new(bytes);
    let Ok(kind) = kind(&mut from) else { return };
    let (Ok(first), Ok(second)) = (object(kind, &mut from), object(kind, &mut from)) else { return };
    let Ok(admitted) = kind.admit(first, &Request::Create) else { return };
    let kept = admitted.object;
    let cells = (kind.cells)(&kept, Timestamp::UNIX_EPOCH);
    assert_eq!(cells.len(), kind.columns.len());
    let again = kind.admit(kept.clone(), &Request::Replace(&kept)).map(|again| again.object);
    assert_eq!(again.as_ref(), Ok(&kept), "{} is not what it was", kind.kind);
    if let Ok(changed) = kind.admit(second, &Request::Replace(&kept)) {
        drop(kind.shown(changed.object));
    }
    drop(kind.shown(kept));
});
