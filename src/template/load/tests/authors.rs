//! What authors of pull requests choose, and where it may stand.

use super::{check, findings};

/// A pipeline inside the template, with text of an author in the run's param `text`.
pub(super) fn inline(value: &str, pipeline: &str) -> Vec<String> {
    let source = format!(
        "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata:\n  name: build\n  annotations:\n    \
         github-trigger.dev/on-repository: acme/*\nspec:\n  params:\n  - {{name: text, value: {value:?}}}\n  pipelineSpec:\n{pipeline}"
    );
    check(&[("t.yaml", &source)]).1
}

#[test]
fn follows_text_of_authors_into_scripts() {
    let step = |field: &str| format!("steps: [{{name: s, image: i, {field}}}]");
    let task = |inside: &str| format!("    tasks:\n    - name: t\n      {inside}\n");
    let direct = |field: &str| task(&format!("taskSpec: {{{}}}", step(field)));
    let passed = task(&format!(
        "params: [{{name: inner, value: \"x $(params.text)\"}}]\n      taskSpec: {{params: [{{name: inner}}], {}}}",
        step("script: \"echo $(params.inner)\"")
    ));
    let by_default = task(&format!(
        "taskSpec: {{params: [{{name: inner, default: $(params.text)}}], {}}}",
        step("args: [\"$(params['inner'])\"]")
    ));
    let despite = |param: &str| task(&format!("taskSpec: {{params: [{param}], {}}}", step("script: $(params.text)")));
    let [despite_declaration, despite_default] = ["{name: text}", "{name: text, default: fixed}"].map(despite);
    let in_matrix = task(&format!(
        "matrix: {{params: [{{name: inner, value: [a, $(params.text)]}}]}}\n      taskSpec: {{params: [{{name: inner}}], {}}}",
        step("command: [sh, -c, \"$(params.inner)\"]")
    ));
    let in_sidecar =
        task("taskSpec: {steps: [{name: s, image: i}], sidecars: [{name: c, image: i, script: $(params.text)}]}");
    let in_template = task("taskSpec: {stepTemplate: {args: [$(params.text)]}, steps: [{name: s, image: i}]}");
    let finally = format!(
        "    tasks: [{{name: a, taskSpec: {{{0}}}}}]\n    finally: [{{name: b, taskSpec: {{{1}}}}}]\n",
        step("script: echo"),
        step("script: $(params.text)")
    );
    let dangerous = [
        "{{ source_branch }}",
        "{{ sender }}",
        "{{ body.pull_request.title }}",
        "x-{{ body.pull_request.head.ref }}",
        "{{ body.pull_request.labels.map(l, l.name) }}",
        "{{ body.pull_request.title.lowerAscii() + '!' }}",
        "{{ body.after2 }}",
        "{{ has(body.x) ? body.x : 'y' }}",
        "{{ event.id }}",
        "{{ body.client_payload.sha }}",
        "{{ body.client_payload.sha + '' }}",
        "{{ string(body.client_payload.draft) }}",
        "{{ has(body.inputs.forced) ? body.inputs.forced : 'no' }}",
        "{{ body.inputs.number + '' }}",
        "{{ body['client_payload'].sha }}",
        "{{ body.client_payload['a'].sha + '' }}",
        "{{ body.client_payload.items.map(i, i.sha) }}",
        "{{ [body.inputs][0].id + '' }}",
        "{{ (has(body.inputs) ? body.inputs : body).sha }}",
        "{{ body.deployment.payload.id }}",
        "{{ body.deployment.payload.id + '' }}",
        "{{ body.repository.custom_properties.status }}",
        "{{ body.package.package_version.npm_metadata.id }}",
        "{{ {'id': body.pull_request.title}.id }}",
        "{{ [{'id': body.pull_request.title}].map(i, i.id) }}",
        "{{ event['id'] }}",
        "{{ event.?id.orValue('') }}",
        "{{ event }}",
        "{{ headers['x-github-delivery'] }}",
    ];
    for value in dangerous {
        let found = inline(value, &direct("script: \"echo $(params.text)\""));
        assert!(found.len() == 1 && found[0].contains("would run as code"), "{value}: {found:#?}");
    }
    for pipeline in [
        &passed,
        &by_default,
        &despite_declaration,
        &despite_default,
        &in_matrix,
        &in_sidecar,
        &in_template,
        &finally,
        &direct("args: ['$(params.text[*])']"),
    ] {
        let found = inline("{{ source_branch }}", pipeline);
        assert!(
            found.len() == 1 && found[0].contains("(source_branch), and would run as code"),
            "{pipeline}: {found:#?}"
        );
    }
    // Hexadecimal, numbers, words of a few, and texts that are made harmless.
    for value in [
        "{{ revision }}",
        "{{ body.pull_request.number }}",
        "{{ target_branch }}",
        "{{ slug(source_branch) }}",
        "{{ repo_url }}",
        "{{ body.pull_request.merge_commit_sha.substring(0, 7) }}",
        "{{ body.pull_request.labels.size() }}",
        "literal",
        "{{ source_branch == 'main' ? 'a' : 'b' }}",
        "{{ body['pull_request'].?number.orValue('') }}",
        "{{ {'a': revision}.id }}",
        "{{ base64.decode('aGVsbG8=') }}",
        "{{ optional.of(revision).orValue('x') }}",
        "{{ event.type + event.action }}",
        "{{ body.action }}",
        "{{ body.pull_request.labels.exists(l, l.name == 'x') ? '1' : '2' }}",
    ] {
        assert_eq!(inline(value, &direct("script: \"echo $(params.text)\"")), [""; 0], "{value}");
    }
    // The way out, and a param of the same name with another value.
    let env = direct("script: \"echo $TEXT\", env: [{name: TEXT, value: $(params.text)}]");
    let own = task(&format!(
        "params: [{{name: text, value: fixed}}]\n      taskSpec: {{params: [{{name: text}}], {}}}",
        step("script: $(params.text)")
    ));
    for pipeline in [&env, &own] {
        assert_eq!(inline("{{ source_branch }}", pipeline), [""; 0], "{pipeline}");
    }
    // What cannot be seen is named.
    let reference = task("taskRef: {name: unseen}\n      params: [{name: inner, value: $(params.text)}]");
    let found = inline("{{ source_branch }}", &reference);
    assert!(
        found.len() == 1 && found[0].contains("warning: lint cannot see this Task: it must read `inner`"),
        "{found:#?}"
    );
    let found = findings("", "  params: [{name: title, value: \"{{ body.pull_request.title }}\"}]\n");
    assert!(found.len() == 1 && found[0].contains("lint cannot see this Pipeline: it must read `title`"), "{found:#?}");
}

#[test]
fn takes_the_action_of_a_dispatch_for_its_senders_text() {
    let found = |events: &str, value: &str| {
        let annotation = format!("    github-trigger.dev/on-event: {events}\n");
        findings(&annotation, &format!("  params: [{{name: action, value: \"{{{{ {value} }}}}\"}}]\n"))
    };
    for value in ["body.action", "event.action", "body.action + ''"] {
        let warned = found("merged, repository_dispatch", value);
        assert!(warned.len() == 1 && warned[0].contains("it must read `action` through `env`"), "{value}: {warned:#?}");
        for events in ["repository_dispatch.deploy", "release", "merged"] {
            assert_eq!(found(events, value), [""; 0], "{events}: {value}");
        }
    }
}

/// The fields of a run that choose what runs, or with which rights, with a text in each.
fn choices(text: &str) -> Vec<String> {
    let step = |fields: &str| {
        format!("  pipelineSpec: {{tasks: [{{name: t, taskSpec: {{steps: [{{name: s, {fields}}}]}}}}]}}\n")
    };
    let task = |fields: &str| format!("  pipelineSpec: {{tasks: [{{name: t, {fields}}}]}}\n");
    let steps = "steps: [{name: s, image: i}]";
    let specs = [
        format!("  pipelineRef: {{name: {text:?}}}\n"),
        format!("  pipelineRef: {{resolver: git, params: [{{name: url, value: {text:?}}}]}}\n"),
        format!("  pipelineRef: {{name: p}}\n  taskRunTemplate: {{serviceAccountName: {text:?}}}\n"),
        format!(
            "  pipelineRef: {{name: p}}\n  taskRunSpecs: [{{pipelineTaskName: t, serviceAccountName: {text:?}}}]\n"
        ),
        format!("  pipelineRef: {{name: p}}\n  workspaces: [{{name: w, secret: {{secretName: {text:?}}}}}]\n"),
        format!(
            "  pipelineRef: {{name: p}}\n  workspaces: [{{name: w, persistentVolumeClaim: {{claimName: {text:?}}}}}]\n"
        ),
        format!(
            "  pipelineRef: {{name: p}}\n  workspaces: [{{name: w, volumeClaimTemplate: {{spec: {{volumeName: {text:?}}}}}}}]\n"
        ),
        format!("  params: [{{name: x, value: {text:?}}}]\n") + &step("image: \"builder:$(params.x)\""),
        format!("  params: [{{name: x, value: {text:?}}}]\n") + &task("taskRef: {name: $(params.x)}"),
        step(&format!("image: {text:?}")),
        step(&format!("ref: {{name: {text:?}}}")),
        step(&format!("image: i, env: [{{name: A, valueFrom: {{secretKeyRef: {{name: {text:?}, key: k}}}}}}]")),
        task(&format!("taskSpec: {{{steps}, sidecars: [{{name: c, image: {text:?}}}]}}")),
        task(&format!("taskSpec: {{{steps}, volumes: [{{name: v, configMap: {{name: {text:?}}}}}]}}")),
    ];
    specs.into()
}

#[test]
fn authors_do_not_choose_what_runs() {
    let found = |events: &str, spec: &str| {
        let source = format!(
            "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata:\n  name: build\n  annotations:\n    \
             github-trigger.dev/on-repository: acme/*\n    github-trigger.dev/on-event: {events}\nspec:\n{spec}"
        );
        let mut found = check(&[("t.yaml", &source)]).1;
        found.retain(|finding| !finding.contains("warning: lint cannot see"));
        found
    };
    for (events, value) in [
        ("merged", "source_branch"),
        ("merged", "slug(source_branch)"),
        ("merged", "body.pull_request.head.repo.full_name"),
        ("merged", "body.pull_request.title.lowerAscii()"),
        ("issue_comment.created", "body.comment.body"),
        ("workflow_run", "body.workflow_run.head_branch"),
        ("push", "body.head_commit.message"),
        ("pull_request.edited", "body.changes.title.from"),
        ("repository_advisory.reported", "body.repository_advisory.summary"),
        ("gollum", "body.pages[0].title"),
        ("merge_group", "body.merge_group.head_commit.message"),
        ("status", "body.commit.commit.message"),
        ("sub_issues", "body.sub_issue.title"),
    ] {
        for spec in choices(&format!("{{{{ {value} }}}}")) {
            let found = found(events, &spec);
            assert!(found.len() == 1 && found[0].contains(&format!("({value}), and with it")), "{spec}: {found:#?}");
        }
    }
    // Chosen with write access to the repository.
    for (events, value) in [
        ("merged", "target_branch"),
        ("merged", "revision"),
        ("merged", "body.pull_request.base.repo.clone_url"),
        ("merged", "body.repository.clone_url"),
        ("push", "target_branch"),
        ("push", "body.ref"),
        ("release.published", "body.release.tag_name"),
        ("merged", "source_branch == 'x' ? 'one' : 'another'"),
    ] {
        for spec in choices(&format!("{{{{ {value} }}}}")) {
            assert_eq!(found(events, &spec), [""; 0], "{spec}");
        }
    }
    // Untrusted text may be data.
    let data = "  params: [{name: x, value: \"{{ source_branch }}\"}, {name: image, value: $(params.x)}]\n  \
                pipelineSpec: {tasks: [{name: t, taskSpec: {steps: [{name: s, image: i, env: [{name: A, value: $(params.x)}]}]}}]}\n";
    assert_eq!(found("merged", data), [""; 0]);
}

#[test]
fn follows_text_of_authors_through_the_environment() {
    let step =
        |fields: &str| format!("    tasks: [{{name: t, taskSpec: {{steps: [{{name: s, image: i, {fields}}}]}}}}]\n");
    let text = "{name: TEXT, value: $(params.text)}";
    let inherited = format!(
        "    tasks: [{{name: t, taskSpec: {{stepTemplate: {{env: [{text}]}}, steps: [{{name: s, image: i, args: [$(TEXT)]}}]}}}}]\n"
    );
    for pipeline in [
        step(&format!("env: [{text}], command: [sh, -c, \"echo $(TEXT)\"]")),
        step(&format!("env: [{text}], args: [\"$$$(TEXT)\"]")),
        step(&format!("env: [{text}, {{name: B, value: \"x $(TEXT)\"}}], args: [$(B)]")),
        inherited,
        // The command is inherited, and the variable the step's own.
        format!(
            "    tasks: [{{name: t, taskSpec: {{stepTemplate: {{args: [$(TEXT)]}}, steps: [{{name: s, image: i, env: [{text}]}}, \
             {{name: s2, image: i, env: [{text}]}}]}}}}]\n"
        ),
    ] {
        let found = inline("{{ body.pull_request.title }}", &pipeline);
        let is_found = found.len() == 1 && found[0].contains("(body.pull_request.title); Kubernetes puts it in");
        assert!(is_found, "{pipeline}: {found:#?}");
        assert_eq!(inline("{{ revision }}", &pipeline), [""; 0], "{pipeline}");
    }
    for pipeline in [
        // No variable, another one, and a script, which Kubernetes does not look into.
        step(&format!("env: [{text}], args: [\"$$(TEXT) $TEXT $(OTHER)\"]")),
        step(&format!("env: [{text}, {{name: TEXT, value: fixed}}], args: [$(TEXT)]")),
        step(&format!("env: [{text}], script: \"echo $(TEXT)\"")),
        // Sidecars inherit nothing.
        format!(
            "    tasks: [{{name: t, taskSpec: {{stepTemplate: {{env: [{text}]}}, steps: [{{name: s, image: i}}], sidecars: [{{name: c, \
             image: i, args: [$(TEXT)]}}]}}}}]\n"
        ),
    ] {
        assert_eq!(inline("{{ body.pull_request.title }}", &pipeline), [""; 0], "{pipeline}");
    }
    // An annotation of the run, which Tekton copies to the pod.
    let from = |key: &str| {
        let metadata = "    example.com/title: \"{{ body.pull_request.title }}\"\n";
        let field = format!("valueFrom: {{fieldRef: {{fieldPath: \"metadata.annotations['{key}']\"}}}}");
        let step = format!("{{name: s, image: i, env: [{{name: A, {field}}}], args: [$(A)]}}");
        let source = format!(
            "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata:\n  name: build\n  annotations:\n    \
             github-trigger.dev/on-repository: acme/*\n    github-trigger.dev/on-event: push\n{metadata}spec:\n  \
             pipelineSpec: {{tasks: [{{name: t, taskSpec: {{steps: [{step}]}}}}]}}\n"
        );
        check(&[("t.yaml", &source)]).1
    };
    for key in ["example.com/title", "github-trigger.dev/target-branch", "github-trigger.dev/sender"] {
        assert_eq!(from(key).len(), 1, "{key}");
    }
    for key in ["github-trigger.dev/commit", "tekton.dev/pipeline"] {
        assert_eq!(from(key), [""; 0], "{key}");
    }
    // An annotation of the task, and of the task's run.
    let field = "valueFrom: {fieldRef: {fieldPath: \"metadata.annotations['t']\"}}";
    let steps = format!("steps: [{{name: s, image: i, env: [{{name: A, {field}}}], args: [$(A)]}}]");
    let title = "{annotations: {t: \"{{ body.pull_request.title }}\"}}";
    for spec in [
        format!("  pipelineSpec: {{tasks: [{{name: t, taskSpec: {{metadata: {title}, {steps}}}}}]}}\n"),
        format!(
            "  taskRunSpecs: [{{pipelineTaskName: t, metadata: {title}}}]\n  pipelineSpec: {{tasks: [{{name: t, taskSpec: {{{steps}}}}}]}}\n"
        ),
    ] {
        let source = format!(
            "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata:\n  name: build\n  annotations:\n    \
             github-trigger.dev/on-repository: acme/*\nspec:\n{spec}"
        );
        let found = check(&[("t.yaml", &source)]).1;
        assert!(found.len() == 1 && found[0].contains("Kubernetes puts it in"), "{spec}: {found:#?}");
    }
}

#[test]
fn finds_params_with_dots_in_their_names() {
    let run = |param: &str, reference: &str| {
        let spec = format!(
            "  params: [{{name: {param}, value: \"{{{{ source_branch }}}}\"}}]\n  pipelineSpec: {{tasks: [{{name: t, taskSpec: \
             {{steps: [{{name: s, image: i, script: \"echo $({reference})\"}}]}}}}]}}\n"
        );
        let source = format!(
            "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata:\n  name: build\n  annotations:\n    \
             github-trigger.dev/on-repository: acme/*\nspec:\n{spec}"
        );
        check(&[("t.yaml", &source)]).1
    };
    for (param, reference) in [
        ("pr.title", "params.pr.title"),
        ("pr.title", "params['pr.title']"),
        ("pr", "params.pr.title"),
        ("pr.title", "params.pr.title[0]"),
    ] {
        let found = run(param, reference);
        assert!(found.len() == 1 && found[0].contains("would run as code"), "{param} {reference}: {found:#?}");
    }
    assert_eq!(run("pr.title", "params.pr.number"), [""; 0]);
}

#[test]
fn keeps_text_of_authors_out_of_expressions_of_tekton() {
    for when in ["\"'$(params.text)' == 'release'\"", "\"'{{ source_branch }}' == 'release'\""] {
        let found = inline(
            "{{ source_branch }}",
            &format!("    tasks: [{{name: t, taskRef: {{name: a}}, when: [{{cel: {when}}}]}}]\n"),
        );
        assert!(
            found.iter().any(|finding| finding.contains("a part of the expression in `cel`")),
            "{when}: {found:#?}"
        );
    }
    let compared = "    tasks: [{name: t, taskRef: {name: a}, when: [{input: $(params.text), operator: in, values: [release]}]}]\n";
    assert_eq!(inline("{{ source_branch }}", compared), [""; 0]);
}

#[test]
fn warns_of_pipelines_from_commits_of_forks() {
    let found = |events: &str, value: &str| {
        let source = format!(
            "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata:\n  name: build\n  annotations:\n    \
             github-trigger.dev/on-repository: acme/*\n    github-trigger.dev/on-event: {events}\nspec:\n  params: [{{name: \
             commit, value: \"{{{{ {value} }}}}\"}}]\n  pipelineRef: {{resolver: git, params: [{{name: revision, value: \
             $(params.commit)}}, {{name: url, value: x}}]}}\n"
        );
        check(&[("t.yaml", &source)]).1
    };
    for (events, value) in [
        ("pull_request.opened", "revision"),
        ("pull_request.opened", "body.pull_request.head.sha"),
        ("merged, pull_request.synchronize", "body.after"),
        ("check_run.completed", "body.check_run.head_sha.substring(0, 8)"),
        ("workflow_run.completed", "body.workflow_run.head_commit.id"),
        ("workflow_run", "body.workflow_run.pull_requests.map(p, p.head.sha)[0]"),
    ] {
        let found = found(events, value);
        assert!(
            found.len() == 1 && found[0].contains("warning: who opens a pull request makes the commit"),
            "{events} {value}: {found:#?}"
        );
    }
    for (events, value) in [
        ("merged", "revision"),
        ("push", "body.after"),
        ("pull_request.opened", "body.pull_request.base.sha"),
        ("pull_request.opened", "repo_url"),
        ("pull_request.opened", "headers['x-github-event']"),
    ] {
        let mut found = found(events, value);
        found.retain(|finding| finding.contains("makes the commit"));
        assert_eq!(found, [""; 0], "{events} {value}");
    }
    for (events, value) in
        [("pull_request.opened", "pull_request_number"), ("issue_comment.created", "body.issue.number")]
    {
        let source = format!(
            "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata:\n  name: build\n  annotations:\n    \
             github-trigger.dev/on-repository: acme/*\n    github-trigger.dev/on-event: {events}\nspec:\n  pipelineRef: {{resolver: \
             git, params: [{{name: revision, value: \"refs/pull/{{{{ {value} }}}}/head\"}}]}}\n"
        );
        let found = check(&[("t.yaml", &source)]).1;
        assert!(found.len() == 1 && found[0].contains("makes the commit (refs/pull/"), "{events}: {found:#?}");
    }
}

#[test]
fn a_param_that_is_given_anew_is_another() {
    let step = "steps: [{name: s, image: i, script: \"echo $(params.text)\"}]";
    for pipeline in [
        format!(
            "    tasks: [{{name: t, matrix: {{params: [{{name: text, value: [linux, mac]}}]}}, taskSpec: {{{step}}}}}]\n"
        ),
        format!(
            "    tasks: [{{name: t, params: [{{name: text, value: fixed}}], pipelineSpec: {{tasks: [{{name: u, taskSpec: {{{step}}}}}]}}}}]\n"
        ),
    ] {
        assert_eq!(inline("{{ source_branch }}", &pipeline), [""; 0], "{pipeline}");
    }
}
