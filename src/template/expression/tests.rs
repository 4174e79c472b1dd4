use serde_json::json;

use super::*;
use crate::template::testing::event;

const SHA: &str = "ec26c3e57ca3a959ca5aad62de7213c562f8c821";

fn merge() -> Event {
    let payload = json!({
        "action": "closed", "number": 5,
        "pull_request": {
            "number": 5, "merged": true, "merge_commit_sha": SHA, "title": "Add \"login\"", "body": null, "ratio": 1.5,
            "base": {"ref": "main"}, "head": {"ref": "Feature/Login"},
            "labels": [{"name": "deploy"}, {"name": "backend"}]
        },
        "repository": {"full_name": "acme/web", "html_url": "https://github.com/acme/web"},
        "sender": {"login": "octo"}
    });
    event("pull_request", "d1", &payload)
}

/// Compiles on a stack as large as the one for templates.
fn compile(source: &str) -> Result<Expression, Error> {
    let source = source.to_owned();
    let thread = std::thread::Builder::new().stack_size(32 << 20).spawn(move || Expression::compile(&source));
    thread.expect("a thread").join().expect("no panic")
}

fn evaluate(source: &str) -> Result<Outcome<'static>, EvaluationError> {
    let expression = compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
    let event = merge();
    let outcome = expression.evaluate(&event)?;
    Ok(match outcome {
        Outcome::Text(text) => Outcome::Text(text.into_owned().into()),
        Outcome::List(items) => Outcome::List(items),
        Outcome::Map(entries) => Outcome::Map(entries),
    })
}

fn text(source: &str) -> String {
    match evaluate(source) {
        Ok(Outcome::Text(text)) => text.into_owned(),
        other => panic!("{source}: {other:?}"),
    }
}

#[test]
fn compiles_all_names_with_and_without_dot() {
    for name in Name::ALL {
        for source in [name.as_str().to_owned(), format!(" .{} ", name.as_str())] {
            assert!(matches!(compile(&source), Ok(Expression::Name(found)) if found == *name), "{source}");
        }
    }
}

#[test]
fn resolves_names_inside_cel() {
    assert_eq!(text("'v-' + .ShortCommitid"), "v-ec26c3e5");
    assert_eq!(text("target_branch + '-' + revision.substring(0, 4)"), "main-ec26");
    assert_eq!(text(".Branch == 'main' ? 'prod' : 'dev'"), "prod");
}

#[test]
fn provides_payload_headers_and_event() {
    assert_eq!(text("body.pull_request.title"), "Add \"login\"");
    assert_eq!(text("body.number"), "5");
    assert_eq!(text("body.pull_request.merged"), "true");
    assert_eq!(text("body.pull_request.labels[0].name.upperAscii()"), "DEPLOY");
    assert_eq!(text("body[\"number\"] + 1"), "6");
    assert_eq!(text("headers['x-github-event']"), "pull_request");
    assert_eq!(
        text("event.type + '.' + event.action + ' ' + event.id + ' ' + event.source"),
        "pull_request.closed d1 https://github.com/acme/web"
    );
    assert_eq!(text("headers.size()"), "1", "the signature is hidden from templates");
}

#[test]
fn provides_slug_and_strings_extension() {
    assert_eq!(text("slug(source_branch)"), "feature-login");
    assert_eq!(text("source_branch.lowerAscii().replace('/', '-')"), "feature-login");
    assert_eq!(text("body.pull_request.labels.map(l, l.name).join(',')"), "deploy,backend");
    assert_eq!(text("'%s-%d'.format([sender, 5])"), "octo-5");
}

#[test]
fn goes_through_maps_in_the_order_of_their_keys() {
    let map = "{'b':'1','a':'2','z':'3','d':'4','c':'5','e':'6'}";
    for (expression, expected) in [
        (format!("{map}.map(k, k).join(',')"), "a,b,c,d,e,z"),
        (format!("{map}.filter(k, k > 'b').join(',')"), "c,d,e,z"),
        ("{10: 'x', 9: 'y', 2: 'z', 1: 'w'}.map(k, string(k)).join(',')".to_owned(), "1,2,9,10"),
        (format!("{map}.exists(k, k == 'z') ? 'yes' : 'no'"), "yes"),
        ("['b', 'a'].map(k, k).join(',')".to_owned(), "b,a"),
    ] {
        assert_eq!(text(&expression), expected, "{expression}");
    }
}

#[test]
fn accepts_lists_and_maps_of_text() {
    let labels = evaluate("body.pull_request.labels.map(l, l.name)");
    assert_eq!(labels, Ok(Outcome::List(vec!["deploy".into(), "backend".into()])));
    let map = evaluate("{'branch': target_branch, 'number': body.number}");
    let wanted = [("branch", "main"), ("number", "5")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(map, Ok(Outcome::Map(wanted.into())));
    assert!(evaluate("[[1]]").is_err());
    assert!(evaluate("body.pull_request.labels").is_err(), "a list of maps");
}

#[test]
fn reports_missing_and_non_text_values() {
    let said = |source: &str| evaluate(source).expect_err(source).to_string();
    assert_eq!(
        said("body.pull_request.milestone.title"),
        "this event has no value for `body.pull_request.milestone.title`; if it may be missing, write \
         body.?pull_request.?milestone.?title.orValue(\"\")"
    );
    assert!(said("body.nothing + 'x'").contains("no value for `nothing` in `body.nothing + 'x'`"));
    assert!(said("TimeString + 'x'").contains("no value for `TimeString`"));
    assert!(said("body.pull_request.ratio").contains("a fraction"));
    assert!(said("1 / 0").contains("ivi"), "{}", said("1 / 0"));
}

/// Log lines must not contain payload values, and must be the same each time.
#[test]
fn errors_contain_types_but_no_payload_values() {
    let said = |source: &str| evaluate(source).expect_err(source).to_string();
    assert_eq!(said("body - revision"), "the operator `sub` does not take map and string");
    for source in [
        "int(body.pull_request.title)",
        "body.pull_request.title - 1",
        "body.pull_request.labels[body.pull_request.title]",
        "body.pull_request[body.pull_request.title]",
        "{'a': 'b'}[body.pull_request.title]",
        "body.pull_request.title < 1",
        "body.pull_request.title.nothing",
        "9223372036854775807 + body.number",
        "body.pull_request.title.matches(body.pull_request.title + '[')",
        "body.pull_request.title.charAt(99)",
        "body.pull_request.labels[99]",
    ] {
        let message = said(source);
        assert!(!message.contains("login") && !message.contains("deploy"), "{source}: {message}");
    }
}

#[test]
fn conditions_accept_only_booleans() {
    let holds = |source: &str| compile(source).expect("an expression").holds(&merge());
    assert_eq!(holds("body.pull_request.labels.exists(l, l.name == 'deploy')"), Ok(true));
    assert_eq!(holds("has(body.pull_request.nothing)"), Ok(false));
    assert_eq!(holds("has(body.pull_request.title) && body.number > 4"), Ok(true));
    assert_eq!(holds("body.pull_request.merged"), Ok(true));
    for bad in ["sender", "'x'", "body.nothing", "body.nothing.x == 1", "5"] {
        assert!(holds(bad).is_err(), "{bad}");
    }
}

#[test]
fn compile_errors_suggest_corrections() {
    let said = |source: &str| compile(source).expect_err(source).to_string();
    assert_eq!(said(".Comitid"), "unknown name `Comitid` in an expression; did you mean `Commitid`?");
    assert!(said("colour").contains("known names are Commitid, ShortCommitid"));
    assert!(said("colour + 'x'").contains("unknown name `colour`"));
    assert_eq!(said("slugg(sender)"), "unknown function `slugg` in an expression; did you mean `slug`?");
    assert!(said("1 +").contains("not a CEL expression"));
    assert!(said(" ").contains("the expression is empty"));
    assert!(said("body").contains("write a field of it"));
    assert!(said("items.map(i, i)").contains("unknown name `items`"));
    assert!(compile("body.a.map(i, i.b)").is_ok(), "a loop binds its name");
}

#[test]
fn rejects_expensive_expressions() {
    let too_long = vec!["1"; 2000].join(" + ");
    assert_eq!(compile(&too_long).expect_err("too long"), Error::TooLong(too_long.len()));
    let costly = |source: &str| {
        let error = compile(source).expect_err(source);
        assert!(matches!(error, Error::TooCostly(_) | Error::Syntax(_)), "{source}: {error}");
    };
    costly(&vec!["1"; 500].join("+"));
    costly(&format!("body{}", "[0]".repeat(300)));
    costly(&format!("{}1{}", "(".repeat(500), ")".repeat(500)));
    costly(&format!("{}{}", "[".repeat(500), "]".repeat(500)));
    costly(&format!("sender{}", ".trim()".repeat(140)));
    costly("body.a.all(x, body.a.all(y, body.a.all(z, x == y && y == z)))");
    costly(&format!("body.a{}", ".map(x, x + x)".repeat(60)));
    costly(&format!("sender{}", ".replace('a', 'aaaaaaaaaa')".repeat(20)));
    costly("sender.replace('a', body.b)");
    costly(&format!("sender.replace('', '{}')", "x".repeat(200)));
    // Typical expressions are accepted.
    for fine in [
        "body.commits.exists(c, c.added.exists(f, f.startsWith('api/')) || c.modified.exists(f, f.startsWith('api/')))",
        "body.a.filter(x, x.b).map(x, x.c).join(',')",
        "sender.replace('_', '-').replace('.', '-')",
        "[1, 2, 3].all(x, x > 0) && [1, 2].exists(x, x == 1)",
    ] {
        assert!(compile(fine).is_ok(), "{fine}");
    }
}

/// The deepest accepted expression must evaluate on the stack of a serving thread.
#[test]
fn evaluates_deepest_accepted_expression_on_small_stack() {
    let mut terms = 2;
    while compile(&vec!["1"; terms + 1].join("+")).is_ok() {
        terms += 1;
    }
    let expression = compile(&vec!["1"; terms].join("+")).expect("an expression");
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
        assert_eq!(expression.evaluate(&merge()), Ok(Outcome::Text(terms.to_string().into())));
    });
    thread.expect("a thread").join().expect("no panic");
}

/// GitHub sends null for what is empty; an author means: nothing.
#[test]
fn treats_null_as_no_value() {
    let payload = json!({
        "action": "closed", "number": 5,
        "pull_request": {
            "number": 5, "merged": true, "merge_commit_sha": SHA, "title": "", "body": null, "milestone": null,
            "assignee": null, "base": {"ref": "main"}, "head": {"ref": "x"},
            "labels": [{"name": "a\"b"}], "auto_merge": {"merge_method": null}, "ratio": 1.5
        },
        "repository": {"full_name": "acme/web"}, "sender": {"login": "octo"}
    });
    let event = event("pull_request", "d1", &payload);
    let text = |source: &str| match compile(source).expect(source).evaluate(&event) {
        Ok(Outcome::Text(text)) => text.into_owned(),
        other => panic!("{source}: {other:?}"),
    };
    for (source, value) in [
        ("body.pull_request.?body.orValue('')", ""),
        ("body.pull_request.?body.orValue('none')", "none"),
        ("body.pull_request.milestone.?title.orValue('none')", "none"),
        ("body.?pull_request.?milestone.?title.orValue('none')", "none"),
        ("body.pull_request.?title.orValue('none')", ""),
        ("body.?nothing.?at.?all.orValue('none')", "none"),
        ("body.pull_request[?'body'].orValue('none')", "none"),
        ("string(body.pull_request.body)", ""),
        ("string(body.number)", "5"),
        ("string(body.pull_request.ratio)", "1.5"),
        ("string(body.pull_request.merged)", "true"),
        ("string(body.pull_request.labels)", r#"[{"name":"a\"b"}]"#),
        ("string(body.pull_request.base)", r#"{"ref":"main"}"#),
        ("body.pull_request.labels.marshalJSON()", r#"[{"name":"a\"b"}]"#),
        ("marshalJSON(body.pull_request.body)", "null"),
        ("base64.encode(bytes(sender))", "b2N0bw=="),
        ("string(base64.decode('b2N0bw=='))", "octo"),
        ("has(body.pull_request.body) ? 'yes' : 'no'", "no"),
        ("has(body.pull_request.title) ? 'yes' : 'no'", "yes"),
        ("has(body.pull_request.milestone.title) ? 'yes' : 'no'", "no"),
        ("has(body.pull_request.auto_merge.merge_method) ? 'yes' : 'no'", "no"),
        ("has(body.nothing.at.all) ? 'yes' : 'no'", "no"),
        ("has(body.nothing) || has(body.number) ? 'yes' : 'no'", "yes"),
        ("body.pull_request.body == null ? 'null' : 'text'", "null"),
        ("body.pull_request.labels.filter(l, has(l.color)).size() == 0 ? 'yes' : 'no'", "yes"),
    ] {
        assert_eq!(text(source), value, "{source}");
    }
    // The advice of a message works when it is followed.
    let said = |source: &str| compile(source).expect(source).evaluate(&event).expect_err(source).to_string();
    assert!(said("body.pull_request.body").contains("write body.?pull_request.?body.orValue(\"\")"));
    assert!(said("'x' + body.pull_request.body").contains("as a.?b.orValue(\"\")"));
}

#[test]
fn rejects_what_no_event_makes_true() {
    let said = |source: &str| compile(source).map(drop).expect_err(source).to_string();
    for (source, correction) in [
        ("headers['X-GitHub-Event'] == 'push'", "write `x-github-event`"),
        ("headers['x-hub-signature-256'] != ''", "only x-github-* and ce-* headers"),
        ("has(headers.authorization)", "only x-github-* and ce-* headers"),
        ("'Content-Type' in headers", "only x-github-* and ce-* headers"),
        ("event.name == 'push'", "its fields are type, action, id, source"),
        ("event == 'push'", "write event.type"),
        ("body.pull_request.base == 'main'", "a map never equals text"),
        ("body.pull_request.labels == 'deploy'", "a list never equals text"),
        ("pull_request_number == 5", "text never equals a number"),
        ("body.pull_request.labels.size() == '1'", "a number never equals text"),
        ("sender.matches('(')", "regular expression"),
        ("cel: pac.target_branch + 'x'", "write {{ target_branch + 'x' }}"),
        ("pac.target_branch + 'x'", "write the name alone"),
    ] {
        assert!(said(source).contains(correction), "{source}: {}", said(source));
    }
    for fine in [
        "headers['x-github-event'] == 'push'",
        "'ce-type' in headers",
        "event.type == 'push' && event.?action.orValue('') == ''",
        "body.pull_request.base.ref == 'main'",
        "body.pull_request.base.repo.id == 7",
        "body.pull_request.body == null",
        "body.pull_request.labels.exists(event, event == 'x')",
        "sender.matches('^(a|b)$')",
        "pull_request_number == '5'",
        "body.pull_request.labels.map(l, l.name) == ['deploy']",
    ] {
        assert!(compile(fine).is_ok(), "{fine}: {:?}", compile(fine));
    }
    for (source, kind) in [
        ("sender", Some("text")),
        ("body.repository", Some("a map")),
        ("body.pull_request.labels.map(l, l.name)", Some("a list")),
        ("body.pull_request.labels.size()", Some("a number")),
        ("'main'", Some("text")),
        ("target_branch + 'x'", Some("text")),
        ("body.pull_request.labels.exists_one(l, l.name == 'x')", None),
        ("body.pull_request.draft", None),
        ("body.x", None),
        ("!body.release.prerelease", None),
        ("target_branch == 'main' ? has(body.a) : true", None),
    ] {
        let fault = compile(source).expect(source).condition_fault();
        assert_eq!(
            fault.as_deref().map(|fault| fault.contains(kind.unwrap_or("?"))),
            kind.map(|_| true),
            "{source}: {fault:?}"
        );
    }
}
