//! Names and functions of Pipelines-as-Code and Tekton Triggers, and what to write instead. See docs/migrating.md.

/// Names and variables in expressions, and what to write instead.
const NAMES: &[(&str, &str)] = &[
    ("pac", "write the name alone, for example `target_branch`"),
    ("header", "write `headers[\"x-github-event\"]`, with the name in lower case"),
    ("extensions", "write the expression itself; nothing is computed before"),
    ("requestURL", "every delivery comes to `/`; it is not available"),
    ("target_namespace", "write the namespace into `metadata.namespace`"),
    ("git_auth_secret", "name the Secret with the repository's credentials; none is made for a run"),
    ("trigger_comment", "write `body.comment.body`"),
    ("pull_request_labels", "write `body.pull_request.labels.map(l, l.name).join(\",\")`"),
    ("git_tag", "write `body.ref.replace(\"refs/tags/\", \"\")`"),
    ("source_url", "write `body.pull_request.head.repo.html_url`, for a push `repo_url`"),
    ("event_title", "write `body.pull_request.title`"),
    ("files", "write the annotation `github-trigger.dev/on-path: src/**`"),
];

/// Functions in expressions, and what to write instead.
const FUNCTIONS: &[(&str, &str)] = &[
    ("match", "write `headers[\"x-github-event\"] == \"push\"`"),
    ("canonical", "write `headers[\"x-github-event\"]`, with the name in lower case"),
    ("pathChanged", "write the annotation `github-trigger.dev/on-path: src/**`"),
    ("truncate", "write `substring(0, 7)`"),
    ("decodeb64", "write `base64.decode(...)`"),
    ("compareSecret", "the signature is verified before; see --webhook-secret-file"),
    ("parseJSON", "GitHub's payload is parsed already; write `body.a.b`"),
    ("parseYAML", "only JSON is parsed; write `body.a.b`"),
    ("parseURL", "write `split(\"/\")`"),
    ("translate", "write `replace(...)`, or `slug(...)` for a name"),
    ("first", "write `[0]`"),
    ("last", "write `[size(list) - 1]`"),
];

/// The successor of a name or variable; `None` if it is not one of theirs.
pub(super) fn name(name: &str) -> Option<&'static str> {
    find(NAMES, name)
}

/// The successor of a function; `None` if it is not one of theirs.
pub(super) fn function(name: &str) -> Option<&'static str> {
    find(FUNCTIONS, name)
}

fn find(table: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    table.iter().find(|(theirs, _)| *theirs == name).map(|(_, here)| *here)
}
