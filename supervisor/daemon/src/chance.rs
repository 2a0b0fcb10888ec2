//! Where random tests get their numbers from: one seed, told, and replayed with `BERTH_SEED`.

use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Number that everything random in a test comes from.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("BERTH_SEED").ok().map(|text| text.parse().expect("BERTH_SEED is a number"));
    let seed = given.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    eprintln!("replay with BERTH_SEED={seed}");
    seed
}

/// `few` in the ordinary run, `many` with `BERTH_LONG=1`.
pub(crate) fn count(few: u32, many: u32) -> u32 {
    if std::env::var("BERTH_LONG").is_ok_and(|value| value == "1") { many } else { few }
}

pub(crate) fn runner(seed: u64, cases: u32) -> TestRunner {
    let bytes: Vec<u8> = [seed; 4].iter().flat_map(|part| part.to_le_bytes()).collect();
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}
