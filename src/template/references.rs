//! What the tasks of a pipeline refer to: each other, by `runAfter`, and the results of others.

use std::collections::{HashMap, HashSet};

use super::placeholder::{self, tekton_variables};
use super::yaml::{Node, Value};

/// A task that can never begin, because it waits for itself; `None` if each can.
pub(super) fn in_a_cycle<'n>(tasks: &[&'n Node], names: &HashMap<&str, &'n Node>) -> Option<&'n Node> {
    let mut waits: Vec<(&Node, usize)> = Vec::with_capacity(tasks.len());
    let mut waiting: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, task) in tasks.iter().enumerate() {
        // That a task runs after itself is reported by itself.
        let own = task.get("name").and_then(Node::text);
        let named = task.items("runAfter").iter().filter_map(literal).filter(|before| own != Some(before));
        let texts: Vec<&str> =
            ["params", "when", "matrix"].into_iter().filter_map(|field| task.get(field)).flat_map(texts).collect();
        let results = texts.iter().flat_map(|text| result_references(text)).map(|(before, _)| before);
        let before: HashSet<&str> = named.chain(results).filter(|before| names.contains_key(before)).collect();
        waits.push((task, before.len()));
        before.into_iter().for_each(|before| waiting.entry(before).or_default().push(index));
    }
    let mut ready: Vec<usize> = (0..waits.len()).filter(|&index| waits[index].1 == 0).collect();
    while let Some(index) = ready.pop() {
        let name = waits[index].0.get("name").and_then(Node::text).unwrap_or_default();
        for after in waiting.remove(name).unwrap_or_default() {
            waits[after].1 -= 1;
            if waits[after].1 == 0 {
                ready.push(after);
            }
        }
    }
    waits.into_iter().find_map(|(task, left)| (left > 0).then_some(task))
}

/// The text of a node without placeholders and Tekton's variables.
pub(super) fn literal(node: &Node) -> Option<&str> {
    node.text().filter(|text| !placeholder::present(text) && !text.contains("$("))
}

/// All texts of a value.
pub(super) fn texts(node: &Node) -> Vec<&str> {
    match &node.value {
        Value::Text(text) => vec![text],
        Value::Sequence(items) => items.iter().flat_map(texts).collect(),
        Value::Mapping(entries) => entries.iter().flat_map(|(_, value)| texts(value)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}

/// The tasks and results that a text refers to.
pub(super) fn result_references(text: &str) -> impl Iterator<Item = (&str, &str)> {
    tekton_variables(text).filter_map(|(_, _, inner)| {
        let (task, result) = inner.strip_prefix("tasks.")?.split_once(".results.")?;
        Some((task, result.split(['.', '[']).next()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_references_to_results() {
        let found: Vec<_> =
            result_references("$(tasks.a.results.b) $(tasks.c.results.d[0]) $(tasks.e.status) $(params.x)").collect();
        assert_eq!(found, [("a", "b"), ("c", "d")]);
    }
}
