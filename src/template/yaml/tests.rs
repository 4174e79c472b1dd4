use serde_json::Number;

use super::*;

fn one(source: &str) -> Node {
    let (mut documents, faults) = parse(source);
    assert_eq!(faults, [], "{source}");
    assert_eq!(documents.len(), 1, "{source}");
    documents.remove(0)
}

fn value(scalar: &str) -> Value {
    one(&format!("a: {scalar}\n")).get("a").expect("a").value.clone()
}

fn fault(source: &str) -> Fault {
    let (_, mut faults) = parse(source);
    assert_eq!(faults.len(), 1, "{source}: {faults:?}");
    faults.remove(0)
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

#[test]
fn parses_json_types() {
    assert_eq!(value("null"), Value::Null);
    assert_eq!(value("~"), Value::Null);
    assert_eq!(value(""), Value::Null);
    assert_eq!(value("true"), Value::Bool(true));
    assert_eq!(value("-5"), Value::Number((-5).into()));
    assert_eq!(value("1.5"), Value::Number(Number::from_f64(1.5).expect("a number")));
    assert_eq!(value("main"), text("main"));
    assert_eq!(value("1h0m0s"), text("1h0m0s"));
    assert_eq!(value("v1"), text("v1"));
    assert_eq!(value("2026-11-22"), text("2026-11-22"));
    assert_eq!(value("ec26c3e5"), text("ec26c3e5"));
    assert_eq!(value("1Gi"), text("1Gi"));
    assert_eq!(value("10.0.0.1"), text("10.0.0.1"));
}

#[test]
fn keeps_quoted_and_tagged_text() {
    for source in ["\"0123\"", "'yes'", "!!str 1.10", "\"null\""] {
        assert!(matches!(value(source), Value::Text(_)), "{source}");
    }
    assert_eq!(value("|\n  line 1\n  line 2\n"), text("line 1\nline 2\n"));
}

#[test]
fn rejects_ambiguous_scalars() {
    for scalar in [
        "yes",
        "No",
        "on",
        "OFF",
        "y",
        "N",
        "True",
        "NULL",
        "0123",
        "007",
        "1.10",
        "1e3",
        "12345678e9",
        "+1",
        "0x1F",
        "0o17",
        "0b11",
        "1_000",
        "12:30:45",
        "22:22",
        "1:30.5",
        "1.0",
        "-3.00",
        ".inf",
        "-.INF",
        ".nan",
        "1.",
        ".5",
        "99999999999999999999",
    ] {
        let fault = fault(&format!("a: {scalar}\n"));
        assert_eq!(fault.at, Position { line: 1, column: 4 }, "{scalar}");
        assert!(fault.message.contains(&format!("write \"{scalar}\" if it is text")), "{}", fault.message);
    }
}

#[test]
fn keeps_addresses_and_port_mappings_as_text() {
    for scalar in ["192.0.2.7:6001", "8080:80", "12:75", "10.0.0.1", "1.2.3", "2026-11-25"] {
        assert_eq!(value(scalar), text(scalar), "{scalar}");
    }
}

#[test]
fn keeps_keys_as_text() {
    let node = one("on: 1\n1.10: 2\nyes: 3\n");
    let keys: Vec<&str> = node.entries().iter().map(|(key, _)| key.name.as_str()).collect();
    assert_eq!(keys, ["on", "1.10", "yes"]);
}

#[test]
fn parses_unquoted_placeholder_as_text() {
    for (source, wanted) in [
        ("{{.Branch}}", "{{.Branch}}"),
        ("{{.A}}-{{ .B }} # comment", "{{.A}}-{{ .B }}"),
        ("a-{{.Branch}}", "a-{{.Branch}}"),
        ("{{ a ? \"b: c\" : 'd' }}", "{{ a ? \"b: c\" : 'd' }}"),
        ("'{{ it }}'", "{{ it }}"),
    ] {
        assert_eq!(value(source), text(wanted), "{source}");
    }
    let items = one("- {{.A}}\n- name: x\n  value: {{.B}}\n- - {{.C}}\n- \"quoted key\": {{.D}}\n");
    let Value::Sequence(items) = items.value else { panic!("a list") };
    assert_eq!(items[0].value, text("{{.A}}"));
    assert_eq!(items[1].get("value").and_then(Node::text), Some("{{.B}}"));
    assert_eq!(items[3].get("quoted key").and_then(Node::text), Some("{{.D}}"));
}

#[test]
fn keeps_placeholders_in_blocks_and_comments() {
    let node = one("script: |\n  value: {{.Branch}}\n  - {{ \"a\" }}\n# value: {{.X}}\nb: {{.B}}\n");
    assert_eq!(node.get("script").and_then(Node::text), Some("value: {{.Branch}}\n- {{ \"a\" }}\n"));
    assert_eq!(node.get("b").and_then(Node::text), Some("{{.B}}"));
}

#[test]
fn positions_are_correct_after_placeholders() {
    let node = one("a:\n  - {{.Branch}}\n  - äö: {{.Branch}}\n");
    let Value::Sequence(items) = &node.get("a").expect("a").value else { panic!("a list") };
    assert_eq!(items[0].at, Position { line: 2, column: 5 });
    assert_eq!(items[1].get("äö").expect("a value").at, Position { line: 3, column: 9 });
    assert_eq!(fault("a: {{.A}}\nb: yes\n").at, Position { line: 2, column: 4 });
}

#[test]
fn rejects_unquoted_placeholder_in_flow_collection() {
    let (_, faults) = parse("a: [{{.A}}]\n");
    assert!(faults[0].message.contains("must be in quotes"), "{faults:?}");
    assert_eq!(faults[0].at, Position { line: 1, column: 5 });
    assert_eq!(one("a: [\"{{.A}}\"]\n").entries().len(), 1);
}

#[test]
fn rejects_duplicate_keys_merges_tags_and_directives() {
    assert!(fault("a: 1\nb: 2\na: 3\n").message.contains("duplicate key"));
    assert!(fault("x: &x {a: 1}\ny:\n  <<: *x\n").message.contains("merge"));
    assert!(fault("a: !ruby/object 1\n").message.contains("not supported"));
    assert!(fault("a: !!binary aGk=\n").message.contains("not supported"));
    assert!(fault("a: !!int \"5\"\n").message.contains("not supported"));
    assert!(fault("? [a]\n: 1\n").message.contains("plain text"));
    assert!(fault("%YAML 1.1\n---\na: 1\n").message.contains("not valid YAML"));
}

#[test]
fn explains_tabs_and_syntax_errors() {
    let tab = fault("a:\n\tb: 1\n");
    assert!(tab.message.contains("indent with spaces"), "{}", tab.message);
    assert_eq!(tab.at.line, 2);
    assert!(fault("a: [1\n").message.contains("not valid YAML"));
    assert!(fault("a: x-{{ b ? 1 : 2 }}\n").message.contains("in quotes"));
}

#[test]
fn resolves_aliases_and_rejects_alias_bombs() {
    let node = one("x: &x [1, 2]\ny: *x\n");
    assert_eq!(node.get("x").map(|node| &node.value), node.get("y").map(|node| &node.value));
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let items = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    assert!(fault(&bomb).message.contains("too many"));
    assert!(fault("a: &a [*a]\n").message.contains("refers to the value that contains it"));
    assert!(fault("a: *unknown\n").message.contains("not valid YAML"));
    let (_, faults) = parse(&format!("a: {}{}\n", "[".repeat(10_000), "]".repeat(10_000)));
    assert_eq!(faults.len(), 1);
    let (_, faults) = parse(&"- ".repeat(10_000));
    assert_eq!(faults.len(), 1);
}

#[test]
fn parses_documents_byte_order_mark_and_line_ends() {
    assert_eq!(parse("").0.len(), 0);
    assert_eq!(parse("# only a comment\n---\n---\n").0.len(), 0);
    let (documents, faults) = parse("\u{FEFF}a: 1\r\nb: |\r\n  x\r\n  y\r\n---\r\nc: {{.C}}\r\n");
    assert_eq!(faults, []);
    assert_eq!(documents[0].get("b").and_then(Node::text), Some("x\ny\n"));
    assert_eq!(documents[1].get("c").and_then(Node::text), Some("{{.C}}"));
    assert_eq!(documents[1].at.line, 6);
}

#[test]
fn rejects_private_use_characters() {
    assert_eq!(fault("a: {{.A}}\nb: \u{F0000}\n").at, Position { line: 2, column: 4 });
    assert!(fault("a: \"\\U000F0000\"\nb: {{.A}}\n").message.contains("private-use"));
}
