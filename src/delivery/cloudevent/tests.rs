use http::{HeaderName, HeaderValue};

use super::*;

const BODY: &[u8] = br#"{"action":"closed"}"#;

/// Headers from GitHubSource's adapter for a merged pull request, with an empty and a non-ASCII extension.
const CAPTURED: &[(&str, &[u8])] = &[
    ("ce-specversion", b"1.0"),
    ("ce-type", b"dev.knative.source.github.pull_request"),
    ("ce-source", b"https://github.com/Codertocat/Hello-World"),
    ("ce-id", b"72d3162e-cc78-11e3-81ab-4c9367dc0958"),
    ("ce-subject", b"2"),
    ("ce-time", b"2026-11-22T13:46:53.11970473Z"),
    ("ce-action", b"closed"),
    ("ce-label", b""),
    ("ce-sender", "J\u{f6}rg \"100%\"".as_bytes()),
    ("ce-installation", b"0"),
    ("content-type", b"application/json"),
];

/// The captured headers, with some replaced (`Some`) or removed (`None`).
fn headers(changes: &[(&str, Option<&[u8]>)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    let changed = |name: &str| changes.iter().any(|(changed, _)| *changed == name);
    let kept = CAPTURED.iter().filter(|(name, _)| !changed(name)).map(|(name, value)| (*name, *value));
    let new = changes.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
    for (name, value) in kept.chain(new) {
        let name: HeaderName = name.parse().expect("a name");
        map.append(name, HeaderValue::from_bytes(value).expect("a value"));
    }
    map
}

fn binary_with(changes: &[(&str, Option<&[u8]>)]) -> Result<Delivery, DecodeError> {
    binary(headers(changes), Bytes::from_static(BODY))
}

fn structured_of(event: &str) -> Result<Delivery, DecodeError> {
    structured(HeaderMap::new(), &Bytes::copy_from_slice(event.as_bytes()))
}

#[test]
fn accepts_githubsource_event() {
    let delivery = binary_with(&[]).expect("a delivery");
    assert_eq!(delivery.kind.as_str(), "pull_request");
    assert_eq!(delivery.id.as_str(), "72d3162e-cc78-11e3-81ab-4c9367dc0958");
    assert_eq!(delivery.payload, BODY);
    assert_eq!(claimed_id(&headers(&[])).expect("an id").as_str(), delivery.id.as_str());
    assert_eq!(claimed_kind(&headers(&[])).expect("a kind").as_str(), "pull_request");
}

#[test]
fn accepts_both_type_prefixes() {
    let of = |kind: &'static str| {
        let delivery = binary_with(&[("ce-type", Some(kind.as_bytes()))]).expect("a delivery");
        (delivery.kind.as_str().to_owned(), delivery.action.as_deref().map(str::to_owned))
    };
    assert_eq!(of("dev.knative.source.github.push"), ("push".into(), None));
    assert_eq!(of("com.github.pull_request.closed"), ("pull_request".into(), Some("closed".into())));
    assert_eq!(of("com.github.push"), ("push".into(), None));
    for foreign in ["org.example.tested", "dev.knative.source.github.", "dev.knative.source.github.Push", "com.github."]
    {
        let error = binary_with(&[("ce-type", Some(foreign.as_bytes()))]).expect_err("a foreign type");
        assert_eq!(error, DecodeError::Foreign(foreign.to_owned()));
    }
}

#[test]
fn reports_foreign_type_before_other_faults() {
    let foreign = binary_with(&[("ce-type", Some(b"org.example")), ("content-type", Some(b"text/xml"))]);
    assert!(matches!(foreign, Err(DecodeError::Foreign(_))));
    let event = r#"{"specversion":"1.0","id":"1","source":"/x","type":"org.example","datacontenttype":"text/xml","data":"<x/>"}"#;
    assert!(matches!(structured_of(event), Err(DecodeError::Foreign(_))));
}

#[test]
fn rejects_missing_empty_and_repeated_attributes() {
    for name in ["ce-specversion", "ce-type", "ce-id", "ce-source"] {
        for value in [None, Some(&b""[..]), Some(b"a%00b"), Some(b"a%0Ab"), Some(b"%C2%85"), Some(b"\xff")] {
            let error = binary_with(&[(name, value)]).expect_err("an attribute is required");
            assert!(matches!(error, DecodeError::Malformed(Malformed::Attribute(..))), "{name} {value:?}: {error}");
        }
        let twice = binary_with(&[(name, Some(b"1.0")), (name, Some(b"1.0"))]).expect_err("an attribute is repeated");
        assert!(twice.to_string().ends_with("is repeated"), "{twice}");
    }
    assert!(binary_with(&[("ce-specversion", Some(b"0.3"))]).is_err());
    assert!(binary_with(&[("ce-source", Some(b"a b"))]).is_err());
}

#[test]
fn unquotes_and_decodes_attributes_once() {
    let id = |value: &'static [u8]| binary_with(&[("ce-id", Some(value))]).expect("a delivery").id.as_str().to_owned();
    assert_eq!(id(b"a%2Db"), "a-b");
    assert_eq!(id(b"a%252Db"), "a%2Db");
    assert_eq!(id(b"\"a\\\"b\""), "a\"b");
    assert_eq!(id(b"100%"), "100%");
    assert_eq!(id("\u{fc}".as_bytes()), "%C3%BC");
    assert_eq!(id(b"%C3%BC"), "%C3%BC");
    let kind = binary_with(&[("ce-type", Some(b"dev.knative.source.github.pull%5Frequest"))]).expect("a delivery");
    assert_eq!(kind.kind.as_str(), "pull_request");
    assert!(binary_with(&[("ce-id", Some(&[b'x'; 2000]))]).is_err());
}

#[test]
fn rejects_data_other_than_json_object() {
    for good in [None, Some(&b"application/json; charset=utf-8"[..]), Some(b"application/vnd.github+json")] {
        assert!(binary_with(&[("content-type", good)]).is_ok(), "{good:?}");
    }
    for bad in [&b"text/plain"[..], b"application/x-www-form-urlencoded", b""] {
        assert_eq!(binary_with(&[("content-type", Some(bad))]).map(drop), Err(DecodeError::DataType), "{bad:?}");
    }
    for body in [&b""[..], b"null", b"[]", b"\"{}\""] {
        let error = binary(headers(&[]), Bytes::from_static(body)).expect_err("no object");
        assert!(matches!(error, DecodeError::Malformed(Malformed::Data(_))), "{body:?}: {error}");
    }
}

#[test]
fn reads_data_of_structured_event() {
    let event = r#" {"specversion":"1.0","id":"e1","source":"/x","type":"com.github.push","datacontenttype":null,
        "subject":"","ext":{"deep":[1]},"traceparent":7,"data": {"b": 1.50} }"#;
    let delivery = structured_of(event).expect("a delivery");
    assert_eq!((delivery.kind.as_str(), delivery.id.as_str()), ("push", "e1"));
    assert_eq!(delivery.payload[..], *br#"{"b": 1.50}"#);
    assert_eq!(delivery.trace, None);
    let event =
        r#"{"specversion":"1.0","id":"e1","source":"/x","type":"com.github.push","data_base64":"eyJiIjoxfQ=="}"#;
    assert_eq!(structured_of(event).expect("a delivery").payload[..], *br#"{"b":1}"#);
}

#[test]
fn rejects_malformed_structured_events() {
    let valid = r#"{"specversion":"1.0","id":"e1","source":"/x","type":"com.github.push","data":{}}"#;
    assert!(structured_of(valid).is_ok());
    for (from, to) in [
        (r#""specversion":"1.0","#, ""),
        (r#""1.0""#, r#""0.3""#),
        (r#""1.0""#, "1.0"),
        (r#""e1""#, "null"),
        (r#""e1""#, r#""""#),
        (r#""e1""#, "1"),
        (r#""e1""#, r#""a\u0000b""#),
        (r#""/x""#, r#""a\nb""#),
        (r#""data":{}"#, r#""data":"{}""#),
        (r#""data":{}"#, r#""data":null"#),
        (r#""data":{}"#, r#""data":[]"#),
        (r#""data":{}"#, r#""data_base64":"%%%""#),
        (r#""data":{}"#, r#""data_base64":"W10=""#),
        (r#""data":{}"#, r#""data":{},"data_base64":"e30=""#),
        (r#","data":{}"#, ""),
        (r#""id":"e1""#, r#""id":"e1","id":"e2""#),
        (valid, "[\"1.0\",\"e1\"]"),
        (valid, "null"),
        (valid, ""),
    ] {
        let event = valid.replacen(from, to, 1);
        let error = structured_of(&event).expect_err(&event);
        assert!(matches!(error, DecodeError::Malformed(_)), "{event}: {error}");
    }
    let typed = valid.replace(r#""data":"#, r#""datacontenttype":"text/plain","data":"#);
    assert_eq!(structured_of(&typed).map(drop), Err(DecodeError::DataType));
}

#[test]
fn prefers_traceparent_header_to_extension() {
    const ORIGIN: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const HOP: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331-01";
    let parent = |changes: &[(&str, Option<&[u8]>)]| {
        let delivery = binary_with(changes).expect("a delivery");
        delivery.trace.map(|trace| trace.traceparent().as_bytes().to_vec())
    };
    assert_eq!(parent(&[("ce-traceparent", Some(ORIGIN))]).as_deref(), Some(ORIGIN));
    assert_eq!(parent(&[("ce-traceparent", Some(ORIGIN)), ("traceparent", Some(HOP))]).as_deref(), Some(HOP));
    assert_eq!(parent(&[("ce-traceparent", Some(b"\xff"))]), None);
    let origin = String::from_utf8_lossy(ORIGIN);
    let event = format!(
        r#"{{"specversion":"1.0","id":"e1","source":"/x","type":"com.github.push","traceparent":"{origin}","data":{{}}}}"#
    );
    assert_eq!(structured_of(&event).expect("a delivery").trace.expect("a trace").traceparent(), origin);
}
