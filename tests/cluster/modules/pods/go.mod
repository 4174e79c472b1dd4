module github-trigger.dev/tests/cluster/pods

go 1.26.0
