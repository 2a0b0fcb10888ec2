//! Numbers that somebody else keeps, read when they are asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Reads numbers at each scrape.
pub trait Probe: Send + Sync + 'static {
    /// All there are now. What cannot be read is left out.
    fn read(&self) -> BoxFuture<'_, Vec<Sample>>;
}

/// What a number counts.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// Name with its unit, without the common prefix and `_total`.
    pub name: &'static str,
    /// One line.
    pub help: &'static str,
    /// How it behaves.
    pub kind: Kind,
}

/// How a number behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Grows, and begins anew with what it counts.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// One number.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Of what.
    pub series: &'static Series,
    /// Which one of them.
    pub labels: Vec<(&'static str, String)>,
    /// In the unit of the series' name.
    pub value: f64,
}

/// What was read last.
#[derive(Clone, Debug, Default)]
pub(super) struct Latest(Arc<Mutex<Vec<Sample>>>);

impl Latest {
    pub(super) fn set(&self, samples: Vec<Sample>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = samples;
    }
}

/// Writes it, all numbers of a series together, as the format wants it.
#[derive(Debug)]
pub(super) struct Probed(pub(super) Latest);

impl Collector for Probed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let samples = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: BTreeMap<&Series, Vec<&Sample>> = BTreeMap::new();
        for sample in samples.iter() {
            all.entry(sample.series).or_default().push(sample);
        }
        for (series, samples) in all {
            let kind = match series.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut described = encoder.encode_descriptor(series.name, series.help, None, kind)?;
            for sample in samples {
                write(&mut described, sample)?;
            }
        }
        Ok(())
    }
}

fn write(described: &mut MetricEncoder<'_>, sample: &Sample) -> Result<(), std::fmt::Error> {
    let Sample { series, labels, value } = sample;
    match labels.is_empty() {
        true => put(described, series.kind, *value),
        false => put(&mut described.encode_family(labels)?, series.kind, *value),
    }
}

fn put(encoder: &mut MetricEncoder<'_>, kind: Kind, value: f64) -> Result<(), std::fmt::Error> {
    match kind {
        Kind::Counter => encoder.encode_counter::<NoLabelSet, f64, f64>(&value, None),
        Kind::Gauge => encoder.encode_gauge(&value),
    }
}
