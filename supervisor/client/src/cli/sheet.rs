//! Tables for people: from the server's Table, or of own making from the columns in the registry.

use berth_model::kinds::{Column, age};
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use jiff::Timestamp;
use serde_json::Value;

use crate::resource::ResourceType;

/// Rows under headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sheet {
    headers: Vec<Header>,
    rows: Vec<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Header {
    name: String,
    wide: bool,
}

/// Space between columns.
const GAP: u16 = 3;

impl Sheet {
    /// An empty table of own making.
    pub fn new(headers: &[&str]) -> Self {
        let header = |name: &&str| Header { name: name.to_uppercase(), wide: false };
        Self { headers: headers.iter().map(header).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The answer to a request for a table: one, or else what came instead of it.
    pub fn of_answer(kind: &ResourceType, answer: &Value, now: Timestamp, with_namespace: bool) -> Self {
        if answer["kind"] == "Table" {
            return Self::of_table(answer, with_namespace);
        }
        match answer["items"].as_array() {
            Some(items) => Self::of_objects(kind, items, now, with_namespace),
            None => Self::of_objects(kind, std::slice::from_ref(answer), now, with_namespace),
        }
    }

    fn of_table(table: &Value, with_namespace: bool) -> Self {
        let columns = table["columnDefinitions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let header = |column: &Value| Header {
            name: column["name"].as_str().unwrap_or_default().to_uppercase(),
            wide: column["priority"].as_i64().unwrap_or_default() > 0,
        };
        let mut sheet = Self { headers: columns.iter().map(header).collect(), rows: Vec::new() };
        for row in table["rows"].as_array().into_iter().flatten() {
            let cells = row["cells"].as_array().map(Vec::as_slice).unwrap_or_default();
            sheet.rows.push(cells.iter().map(text).collect());
        }
        let objects = table["rows"].as_array().into_iter().flatten().map(|row| &row["object"]);
        sheet.namespaces(with_namespace, objects.map(namespace).collect())
    }

    /// A table made here, by the registry's columns.
    pub fn of_objects(kind: &ResourceType, objects: &[Value], now: Timestamp, with_namespace: bool) -> Self {
        let namespaces = objects.iter().map(namespace).collect();
        let sheet = match kind.registration() {
            Some(known) => Self {
                headers: known.columns.iter().map(header_of).collect(),
                rows: objects.iter().map(|object| (known.cells)(object, now).iter().map(text).collect()).collect(),
            },
            None => Self::of_unknown(objects, now),
        };
        sheet.namespaces(with_namespace && kind.namespaced, namespaces)
    }

    fn of_unknown(objects: &[Value], now: Timestamp) -> Self {
        let mut sheet = Self::new(&["Name", "Age"]);
        for object in objects {
            let created = object["metadata"]["creationTimestamp"].as_str();
            sheet.row(vec![text(&object["metadata"]["name"]), since(created, now)]);
        }
        sheet
    }

    fn namespaces(mut self, wanted: bool, namespaces: Vec<String>) -> Self {
        if wanted {
            self.headers.insert(0, Header { name: "NAMESPACE".to_owned(), wide: false });
            for (row, namespace) in self.rows.iter_mut().zip(namespaces) {
                row.insert(0, namespace);
            }
        }
        self
    }

    /// The text, without an end of line. Columns become as wide as they were in `widths`, so that
    /// rows printed later stand under those printed before.
    pub fn render(&self, wide: bool, widths: &mut Vec<u16>, with_header: bool) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        let shown = |index: &usize| wide || !self.headers[*index].wide;
        let columns: Vec<usize> = (0..self.headers.len()).filter(shown).collect();
        if with_header {
            table.set_header(columns.iter().map(|column| self.headers[*column].name.clone()));
        }
        for row in &self.rows {
            table.add_row(columns.iter().map(|column| row.get(*column).map(|cell| clean(cell)).unwrap_or_default()));
        }
        fit(&mut table, widths);
        table.trim_fmt()
    }
}

fn fit(table: &mut Table, widths: &mut Vec<u16>) {
    let now = table.column_max_content_widths();
    widths.resize(now.len(), 0);
    for (index, (width, now)) in widths.iter_mut().zip(now).enumerate() {
        *width = (*width).max(now);
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, GAP));
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(*width + GAP)));
        }
    }
}

/// A cell stays on its line.
fn clean(cell: &str) -> String {
    cell.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn header_of(column: &Column) -> Header {
    Header { name: column.name.to_uppercase(), wide: column.priority > 0 }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn namespace(object: &Value) -> String {
    text(&object["metadata"]["namespace"])
}

/// Time since an RFC 3339 time, as tables show it.
pub(super) fn since(time: Option<&str>, now: Timestamp) -> String {
    match time.and_then(|time| time.parse::<Timestamp>().ok()) {
        Some(time) => age(now.duration_since(time).as_secs()),
        None => "<unknown>".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table() -> Value {
        json!({
            "kind": "Table",
            "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Restarts", "priority": 0},
                                  {"name": "Image", "priority": 1}],
            "rows": [
                {"cells": ["web", 3, "r/web:1"], "object": {"metadata": {"namespace": "default"}}},
                {"cells": ["a-longer-name", null, "r/x:1"], "object": {"metadata": {"namespace": "other"}}}]
        })
    }

    fn shown(sheet: &Sheet, wide: bool) -> String {
        sheet.render(wide, &mut Vec::new(), true)
    }

    #[test]
    fn a_table_of_the_server_is_shown_as_kubectl_does() {
        let kind = ResourceType::by_word("bundles").unwrap();
        let sheet = Sheet::of_answer(&kind, &table(), Timestamp::UNIX_EPOCH, false);
        assert_eq!(shown(&sheet, false), "NAME            RESTARTS\nweb             3\na-longer-name");
        let lines = shown(&sheet, true);
        assert_eq!(lines.lines().next(), Some("NAME            RESTARTS   IMAGE"));
    }

    #[test]
    fn the_namespace_stands_first_where_it_is_needed() {
        let kind = ResourceType::by_word("bundles").unwrap();
        let sheet = Sheet::of_answer(&kind, &table(), Timestamp::UNIX_EPOCH, true);
        assert_eq!(shown(&sheet, false).lines().nth(2), Some("other       a-longer-name"));
    }

    #[test]
    fn a_server_without_tables_is_helped_out() {
        let kind = ResourceType::by_word("configmaps").unwrap();
        let list = json!({"kind": "ConfigMapList", "items": [
            {"metadata": {"name": "a", "creationTimestamp": "1970-01-01T00:00:00Z"}, "data": {"x": "1", "y": "2"}}]});
        let now = Timestamp::from_second(90).unwrap();
        let sheet = Sheet::of_answer(&kind, &list, now, false);
        assert_eq!(shown(&sheet, false), "NAME   DATA   AGE\na      2      90s");
    }

    #[test]
    fn later_rows_stand_under_earlier_ones_and_a_cell_stays_on_its_line() {
        let mut first = Sheet::new(&["name", "message"]);
        first.row(vec!["a-long-name".into(), "x".into()]);
        let mut widths = Vec::new();
        first.render(false, &mut widths, true);
        let mut later = Sheet::new(&["name", "message"]);
        later.row(vec!["b".into(), "two\nlines".into()]);
        assert_eq!(later.render(false, &mut widths, false), "b             two lines");
    }
}
