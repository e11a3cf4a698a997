"""What keeps a draft from being deployed, and what does not."""

from typing import Any

from tests.effort import costing_at_most

from insula.engine.document import check, fill, warnings

HELLO = [{"role": "user", "content": "Hi"}]


def code(key: str, source: str = "return 1", *destinations: str, **more: Any) -> dict[str, Any]:
    return {"type": "code", "key": key, "code": source, "destinations": list(destinations), **more}


def model(key: str, *tools: str, messages: Any = HELLO, **settings: Any) -> dict[str, Any]:
    provider = {"provider": "mock", "model": "", "messages": messages, "tools": list(tools)}
    return {"type": "model", "key": key, "provider": {**provider, **settings}}


def request(key: str, url: str = "http://h", **more: Any) -> dict[str, Any]:
    return {"type": "http_request", "key": key, "url": url, **more}


def found(*steps: dict[str, Any]) -> list[tuple[str, str]]:
    document, problems = check(fill({"steps": list(steps)}))
    assert problems == []
    assert document is not None
    return [(".".join(problem.path), problem.code) for problem in warnings(document)]


def test_scripts_that_do_not_parse_wherever_they_stand() -> None:
    branch = {
        "type": "branch",
        "key": "b",
        "conditions": {"x": {"condition": "a >", "destinations": [], "order": 0}},
    }
    assert found(code("a", "return (", loop="[", conditional="}"), branch) == [
        ("steps.0.conditional", "script"),
        ("steps.0.loop", "script"),
        ("steps.0.code", "script"),
        ("steps.1.conditions.x.condition", "script"),
    ]


def test_only_code_awaits() -> None:
    branch = {
        "type": "branch",
        "key": "b",
        "conditions": {"x": {"condition": "await f()", "destinations": [], "order": 0}},
    }
    waiting = code("a", "return await fetch('http://h')", loop="for await (const x of y) return x")
    inside = code("c", conditional="(async () => { await fetch('http://h') })")
    assert found(waiting, branch, inside, request("d", "{{await input.url()}}")) == [
        ("steps.0.loop", "script"),
        ("steps.1.conditions.x.condition", "script"),
        ("steps.3.url", "template"),
    ]


def test_templates_that_do_not_parse_wherever_they_stand() -> None:
    assert found(
        request("a", "{{", headers={"x": "{{"}, body="{{"),
        request("b", headers="{{"),
        model("c", messages="{{"),
        model("d", messages=[{"role": "user", "content": [{"type": "text", "text": "{{"}]}]),
        {"type": "workflow", "key": "e", "workflow_id": "work_1", "input": {"x": ["{{"]}},
        {
            "type": "workflow",
            "key": "f",
            "workflow_id": "{{",
            "workflow_version_id": "{{",
            "step_key": "{{",
        },
        {"type": "workflow", "key": "g", "workflow_id": "work_1", "workflow_version_id": 3},
        model("h", connection_id="{{"),
    ) == [
        ("steps.0.url", "template"),
        ("steps.0.headers.x", "template"),
        ("steps.0.body", "template"),
        ("steps.1.headers", "template"),
        ("steps.2.provider.messages", "template"),
        ("steps.3.provider.messages.0.content.0.text", "template"),
        ("steps.4.input.x.0", "template"),
        ("steps.5.workflow_id", "template"),
        ("steps.5.workflow_version_id", "template"),
        ("steps.5.step_key", "template"),
        ("steps.7.provider.connection_id", "template"),
    ]


def test_disabled_variables_are_no_templates() -> None:
    messages = [
        {"role": "system", "content": "{{", "disable_variables": True},
        {"role": "user", "content": [{"type": "text", "text": "{{", "disable_variables": True}]},
    ]
    assert found(model("m", messages=messages)) == []


def test_files_can_stand_in_messages_only() -> None:
    hole = "{{input.doc:contents}}"
    assert found(model("m", messages=[{"role": "user", "content": hole}])) == []
    assert found(model("m", messages=f"Read {hole}")) == []
    assert found(request("r", f"http://h/{hole}")) == [("steps.0.url", "template")]


def test_references_to_steps_that_are_not_there() -> None:
    assert found(code("a", "return gone.output + gone['status']")) == [
        ("steps.0.code", "missing_step")
    ]
    assert found(request("a", "http://h/{{gone.output.x}}")) == [("steps.0.url", "missing_step")]


def test_references_to_steps_that_are_not_before() -> None:
    assert found(
        code("a", "return b.output", "b"), code("b"), code("c", "return a.x + c.output")
    ) == [
        ("steps.0.code", "not_ancestor"),
        ("steps.2.code", "not_ancestor"),
        ("steps.2.code", "not_ancestor"),
    ]
    assert found({"type": "note", "key": "n"}, code("a", "return n.output")) == [
        ("steps.1.code", "not_ancestor")
    ]


def test_ancestors_may_be_referred_to_by_any_way() -> None:
    branch = {
        "type": "branch",
        "key": "b",
        "conditions": {"x": {"condition": "a.output", "destinations": ["c"], "order": 0}},
        "else": ["d"],
    }
    assert (
        found(
            code("a", "return 1", "b"),
            branch,
            code("c", "return a.output + b.output.x"),
            request("d", "http://h/{{a.output}}/{{b.status}}", destinations=["e"]),
            code("e", "return a.output + d.output.body"),
        )
        == []
    )


def test_what_only_looks_like_a_reference_is_left_alone() -> None:
    assert (
        found(
            code("total"),
            code(
                "a",
                """
            const answer = await fetch('http://h'); later = answer;
            const {output} = input;
            try { return [answer.status, later.status, output.output, Math.output, maybe] }
            catch (problem) { return problem.error + input.list.map(total => total.output) }
            """,
            ),
            request(
                "r", "http://h/{{variables.x}}/{{input.output}}/{{args.status}}/{{item.error}}{{u}}"
            ),
        )
        == []
    )


def test_a_tool_sees_what_the_steps_that_call_it_see() -> None:
    assert (
        found(
            code("a", "return 1", "m"),
            model("m", "t", "external:other"),
            model("t", "u", messages=[{"role": "user", "content": "{{a.output}} {{args.x}}"}]),
            code("u", "return a.output + args.y"),
        )
        == []
    )
    assert found(model("m", "t"), code("t", "return m.output")) == [
        ("steps.1.code", "not_ancestor")
    ]


def test_tools_must_be_there_and_able_to_answer() -> None:
    assert found(model("m", "gone", "n"), {"type": "note", "key": "n"}) == [
        ("steps.0.provider.tools.0", "missing_step"),
        ("steps.0.provider.tools.1", "tool_type"),
    ]


def test_empty_settings() -> None:
    assert found(
        code("a", "  "),
        request("b", ""),
        {"type": "browser", "key": "c"},
        {"type": "workflow", "key": "d"},
        {"type": "service", "key": "e"},
        {"type": "model", "key": "f"},
        {
            "type": "model",
            "key": "g",
            "provider": {"provider": "openai", "messages": "{{input.m}}"},
        },
        {"type": "branch", "key": "h", "conditions": {"x": {}}},
        {"type": "input", "key": "i"},
        {"type": "note", "key": "j"},
    ) == [
        ("steps.0.code", "empty"),
        ("steps.1.url", "empty"),
        ("steps.2.url", "empty"),
        ("steps.3.workflow_id", "empty"),
        ("steps.4.service", "empty"),
        ("steps.5.provider.provider", "empty"),
        ("steps.5.provider.messages", "empty"),
        ("steps.6.provider.model", "empty"),
        ("steps.7.conditions.x.condition", "empty"),
    ]


def test_a_large_document_takes_little_time() -> None:
    steps = [
        code(f"s{i}", f"return {f's{i - 1}.output' if i else 1}", f"s{i + 1}") for i in range(3000)
    ]
    with costing_at_most(750):
        assert found(*steps, code("s3000")) == []
