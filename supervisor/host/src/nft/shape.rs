//! How much there is in a table, to hold what the kernel has against what it was told.
//!
//! nft spells rules in other words than those it was given, so they cannot be compared as text; how many there are in
//! each chain, and how many elements in each map, can. What others add, remove or flush shows in these numbers.

use std::collections::BTreeMap;

use nftables::schema::NfListObject;
use serde_json::Value;

use super::{NftError, Ruleset, family_word, read};

/// Rules by chain and elements by map, under `chain <name>` and `map <name>`.
type Shape = BTreeMap<String, usize>;

impl Ruleset {
    fn shape(&self) -> Shape {
        let mut shape = Shape::new();
        for object in self.chains.iter().chain(&self.rules).chain(&self.maps) {
            match object {
                NfListObject::Chain(chain) => drop(shape.entry(format!("chain {}", chain.name)).or_default()),
                NfListObject::Rule(rule) => *shape.entry(format!("chain {}", rule.chain)).or_default() += 1,
                NfListObject::Map(map) => {
                    let elements = map.elem.as_ref().map_or(0, |elements| elements.len());
                    shape.insert(format!("map {}", map.name), elements);
                }
                // The kernel may join ranges of a set.
                _ => {}
            }
        }
        shape
    }

    /// Where the kernel's table differs from this one, a sentence each; empty if it does not.
    ///
    /// # Errors
    /// [`NftError`].
    pub async fn differences(&self) -> Result<Vec<String>, NftError> {
        let table = format!("table {} {}", family_word(self.family), self.table);
        match read(self.family, &self.table).await? {
            None => Ok(vec![format!("{table} is gone")]),
            Some(objects) => Ok(compared(&table, &self.shape(), &shape_of(&objects))),
        }
    }
}

/// The shape of a listing.
fn shape_of(objects: &[Value]) -> Shape {
    let mut shape = Shape::new();
    for object in objects {
        let name = |kind: &str, field: &str| object[kind][field].as_str().map(str::to_owned);
        if let Some(chain) = name("chain", "name") {
            shape.entry(format!("chain {chain}")).or_default();
        } else if let Some(chain) = name("rule", "chain") {
            *shape.entry(format!("chain {chain}")).or_default() += 1;
        } else if let Some(map) = name("map", "name") {
            shape.insert(format!("map {map}"), object["map"]["elem"].as_array().map_or(0, Vec::len));
        }
    }
    shape
}

fn compared(table: &str, told: &Shape, has: &Shape) -> Vec<String> {
    let count = |shape: &Shape, name: &str| shape.get(name).map_or_else(|| "none".to_owned(), usize::to_string);
    let differs = told.iter().filter(|(name, count)| has.get(*name) != Some(count)).map(|(name, _)| name);
    let added = has.keys().filter(|name| !told.contains_key(*name));
    differs
        .chain(added)
        .map(|name| format!("{table}, {name}: {} in it instead of {}", count(has, name), count(told, name)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_added_flushed_or_removed_shows_in_the_numbers() {
        let told = Shape::from([("chain in".into(), 2), ("chain out".into(), 0), ("map to".into(), 1)]);
        let same = [
            json!({"table": {"name": "t"}}),
            json!({"chain": {"name": "in"}}),
            json!({"chain": {"name": "out"}}),
            json!({"rule": {"chain": "in"}}),
            json!({"rule": {"chain": "in"}}),
            json!({"map": {"name": "to", "elem": [[1, 2]]}}),
        ];
        assert_eq!(compared("t", &told, &shape_of(&same)), Vec::<String>::new());
        let flushed = [&same[..3], &[json!({"map": {"name": "to"}}), json!({"chain": {"name": "new"}})]].concat();
        assert_eq!(
            compared("t", &told, &shape_of(&flushed)),
            [
                "t, chain in: 0 in it instead of 2",
                "t, map to: 0 in it instead of 1",
                "t, chain new: 0 in it instead of none"
            ]
        );
    }
}
