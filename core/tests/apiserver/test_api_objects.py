"""The verbs on objects, over HTTP and a real keyspace."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from nanocloud.apiserver.bodies import MAX_BODY_BYTES
from nanocloud.keyspace import Keyspace
from nanocloud.models.bundle import BUNDLE
from nanocloud.models.core import CONFIG_MAP
from nanocloud.models.pod import POD
from nanocloud.objects import ObjectStore
from nanocloud.testkit.api import GUEST, NOBODY, ApiClient, PatchForm, refusal
from nanocloud.testkit.objects import bundle, config_map, pod

MAPS = "/api/v1/namespaces/default/configmaps"
BUNDLES = "/apis/nanocloud.io/v1/namespaces/default/bundles"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io, application/json"


async def refused(call: Awaitable[object], code: int, reason: str, text: str = "") -> dict[str, Any]:
    error = await refusal(call)
    status = dict(error.cause)
    assert (error.code, status["kind"], status["code"], status["reason"]) == (code, "Status", code, reason)
    assert text in status["message"], status["message"]
    return status


async def test_create_read_delete(api: ApiClient) -> None:
    made = await api.create(CONFIG_MAP, config_map("a", x="1"))
    assert made["metadata"]["namespace"] == "default"
    assert await api.get(CONFIG_MAP, "a") == made
    gone = await api.delete(CONFIG_MAP, "a")
    assert gone["status"] == "Success"
    assert gone["details"]["uid"] == made["metadata"]["uid"]
    status = await refused(api.get(CONFIG_MAP, "a"), 404, "NotFound", 'configmaps "a" not found')
    assert status["details"] == {"name": "a", "kind": "configmaps"}


async def test_create_refuses_what_does_not_fit_the_path(api: ApiClient) -> None:
    body = config_map("a")
    await refused(api.create(CONFIG_MAP, body | {"kind": "Pod"}), 400, "BadRequest", "this path takes 'ConfigMap'")
    elsewhere = api.request("POST", MAPS, config_map("a", namespace="other"))
    await refused(elsewhere, 400, "BadRequest", "namespace of the provided object")
    await refused(api.create(CONFIG_MAP, config_map("a", namespace="nope")), 404, "NotFound", 'namespaces "nope"')
    status = await refused(api.create(CONFIG_MAP, {"metadata": {}}), 422, "Invalid")
    assert status["details"]["causes"][0]["reason"] == "FieldValueRequired"
    await refused(api.create(CONFIG_MAP, config_map("A_b")), 422, "Invalid", "RFC 1123")
    await api.create(CONFIG_MAP, body)
    await refused(api.create(CONFIG_MAP, body), 409, "AlreadyExists")
    await refused(api.request("POST", "/api/v1/configmaps", body), 405, "MethodNotAllowed")
    await refused(api.request("POST", f"{MAPS}/a", body), 405, "MethodNotAllowed")


@pytest.mark.parametrize(
    ("body", "media", "code", "reason"),
    [
        (b"{", "application/json", 400, "BadRequest"),
        (b"", "application/json", 400, "BadRequest"),
        (b"[]", "application/json", 400, "BadRequest"),
        (b"x", "text/plain", 415, "UnsupportedMediaType"),
        (b'{"metadata":' + b"[" * 600 + b"]" * 600 + b"}", "application/json", 400, "BadRequest"),
        (b'{"metadata":{"name":"a","resourceVersion":"x"}}', "application/json", 400, "BadRequest"),
        (b'{"metadata":{"name":["a"]}}', "application/json", 422, "Invalid"),
        (b'{"metadata":{"name":"a","labels":{"k":5}}}', "application/json", 422, "Invalid"),
        (b'{"metadata":{"name":"a","finalizers":"x"}}', "application/json", 422, "Invalid"),
        (b'{"metadata":7}', "application/json", 400, "BadRequest"),
        (b'{"metadata":{"name":"a"},"data":{"../x":"1"}}', "application/json", 422, "Invalid"),
        (b"k8s\x00\xff\xff", "application/vnd.kubernetes.protobuf", 400, "BadRequest"),
        (b"a: &x 1\nb: *x", "application/yaml", 400, "BadRequest"),
        (b"metadata: {name: a, generation: 99999999999999999999}", "application/yaml", 400, "BadRequest"),
        (b"a: 1\n---\nb: 2", "application/yaml", 400, "BadRequest"),
        (b" " * (MAX_BODY_BYTES + 1), "application/json", 413, "RequestEntityTooLarge"),
    ],
)
async def test_bad_bodies_get_one_clear_answer(api: ApiClient, body: bytes, media: str, code: int, reason: str) -> None:
    await refused(api.request("POST", MAPS, body, headers={"Content-Type": media}), code, reason)


async def test_a_body_without_an_announced_length_is_bounded_too(api: ApiClient) -> None:
    body = api.request("POST", MAPS, b" " * (MAX_BODY_BYTES + 1), headers={"Content-Length": ""})
    await refused(body, 413, "RequestEntityTooLarge", "larger than 3145728 bytes")


async def test_a_yaml_body_and_a_yaml_answer(api: ApiClient) -> None:
    text = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  on: 'yes'\n"
    headers = {"Content-Type": "application/yaml", "Accept": "application/yaml"}
    made = await api.request("POST", MAPS, text, headers=headers)
    assert made.code == 201
    assert "'on': 'yes'" in made.text
    assert await refused(api.request("GET", MAPS, headers={"Accept": "text/xml"}), 406, "NotAcceptable")


async def test_a_bad_bundle_names_every_field(api: ApiClient) -> None:
    body = bundle("shop", start="yes", options={"port": 3306}, security={"seccompProfile": "None"})
    status = await refused(api.create(BUNDLE, body), 422, "Invalid")
    assert {cause["field"] for cause in status["details"]["causes"]} == {
        "spec.start",
        "spec.options.port",
        "spec.security.seccompProfile",
    }
    assert 'one of "Baseline", "RuntimeDefault", "Localhost"' in status["message"]
    assert (status["details"]["kind"], status["details"]["group"]) == ("Bundle", "nanocloud.io")


async def test_unknown_fields_are_refused_warned_about_or_ignored(api: ApiClient) -> None:
    body = bundle("shop", optons={})
    strict = api.create(BUNDLE, body, query={"fieldValidation": "Strict"})
    await refused(strict, 400, "BadRequest", 'strict decoding error: unknown field "spec.optons"')
    answer = await api.request("POST", BUNDLES, body, query={"dryRun": "All"})
    assert answer.headers["warning"] == r'299 - "unknown field \"spec.optons\""'
    assert "optons" not in answer.json()["spec"]
    answer = await api.request("POST", BUNDLES, body, query={"dryRun": "All", "fieldValidation": "Ignore"})
    assert "warning" not in answer.headers
    assert (await api.list(BUNDLE)).items == []


async def test_updates_need_the_present_revision(api: ApiClient) -> None:
    made = await api.create(BUNDLE, bundle("shop"))
    made["spec"]["start"] = False
    assert (await api.update(BUNDLE, made))["metadata"]["generation"] == 2
    await refused(api.update(BUNDLE, made), 409, "Conflict", "the object has been modified")
    del made["metadata"]["resourceVersion"]
    await refused(api.update(BUNDLE, made), 422, "Invalid", "must be specified for an update")
    made["metadata"]["name"] = "other"
    other = api.request("PUT", f"{BUNDLES}/shop", made)
    await refused(other, 400, "BadRequest", "does not match the name on the URL")
    await api.create(CONFIG_MAP, config_map("a"))
    assert (await api.update(CONFIG_MAP, config_map("a", x="2")))["data"] == {"x": "2"}


async def test_status_is_a_path_of_its_own(api: ApiClient) -> None:
    body = bundle("shop") | {"status": {"phase": "Running"}}
    made = await api.create(BUNDLE, body)
    assert "status" not in made
    made["status"] = {"phase": "Running"}
    made["spec"]["start"] = False
    answer = await api.update(BUNDLE, made, subresource="status")
    assert (answer["status"], answer["spec"]["start"]) == ({"phase": "Running"}, True)
    await refused(api.call(BUNDLE, "shop", "status", made), 405, "MethodNotAllowed")
    await refused(api.call(BUNDLE, "shop", "nothing", method="GET"), 404, "NotFound")


async def test_patches(api: ApiClient) -> None:
    await api.create(CONFIG_MAP, config_map("a", x="1", y="2"))

    async def patch(change: Any, form: PatchForm = "merge", name: str = "a") -> Any:
        return await api.patch(CONFIG_MAP, name, change, form=form)

    assert (await patch({"data": {"x": None, "z": "3"}}))["data"] == {"y": "2", "z": "3"}
    operations = [{"op": "test", "path": "/data/y", "value": "2"}, {"op": "remove", "path": "/data/z"}]
    assert (await patch(operations, "json"))["data"] == {"y": "2"}
    await refused(patch(operations, "json"), 422, "Invalid", "no such path")
    await refused(patch({}, "json"), 400, "BadRequest", "list of operations")
    before = await api.get(CONFIG_MAP, "a")
    assert await patch({"data": {"y": "2"}}, "strategic-merge") == before
    stale = {"metadata": {"resourceVersion": "1"}, "data": {"y": "9"}}
    await refused(patch(stale), 409, "Conflict")
    await refused(patch({"metadata": {"name": "b"}}), 400, "BadRequest")
    nothing = [{"op": "remove", "path": "/metadata"}, {"op": "add", "path": "", "value": 1}]
    await refused(patch(nothing, "json"), 400, "BadRequest")
    await api.create(BUNDLE, bundle("shop"))
    strategic = api.patch(BUNDLE, "shop", {}, form="strategic-merge")
    await refused(strategic, 415, "UnsupportedMediaType", "merge-patch+json")
    await refused(api.request("PATCH", f"{MAPS}/a", {}), 415, "UnsupportedMediaType")
    await refused(patch({}, name="none"), 404, "NotFound")


async def test_finalizers_hold_a_bundle(api: ApiClient) -> None:
    made = await api.create(BUNDLE, bundle("shop"))
    wrong = {"preconditions": {"uid": "other"}}
    await refused(api.delete(BUNDLE, "shop", options=wrong), 409, "Conflict")
    await refused(api.delete(BUNDLE, "shop", options={"propagationPolicy": "No"}), 400, "BadRequest")
    right = {"preconditions": {"uid": made["metadata"]["uid"]}, "propagationPolicy": "Background"}
    marked = await api.delete(BUNDLE, "shop", options=right)
    assert marked["metadata"]["deletionTimestamp"]
    assert (await api.delete(BUNDLE, "shop"))["kind"] == "Bundle"
    await api.patch(BUNDLE, "shop", {"metadata": {"finalizers": None}})
    await refused(api.get(BUNDLE, "shop"), 404, "NotFound")


async def test_lists_select_and_page(api: ApiClient, keyspace: Keyspace, store: ObjectStore) -> None:
    for index in range(5):
        await api.create(CONFIG_MAP, config_map(f"c{index}", labels={"odd": str(index % 2)}))

    async def names(**params: str) -> list[str]:
        return [item["metadata"]["name"] for item in (await api.list(CONFIG_MAP, query=params)).items]

    assert await names(labelSelector="odd=1") == ["c1", "c3"]
    assert await names(labelSelector="odd notin (1),!nope") == ["c0", "c2", "c4"]
    assert await names(fieldSelector="metadata.name=c2,metadata.name=c2") == ["c2"]
    assert await names(fieldSelector="metadata.name!=c2", labelSelector="odd=0") == ["c0", "c4"]
    for params in ({"labelSelector": "a in"}, {"fieldSelector": "spec.x=1"}, {"continue": "x"}, {"limit": "-1"}):
        await refused(api.list(CONFIG_MAP, query=params), 400, "BadRequest")
    page = await api.list(CONFIG_MAP, query={"limit": "2"})
    await api.delete(CONFIG_MAP, "c3")
    rest = await api.list(CONFIG_MAP, query={"limit": "9", "continue": page.next})
    assert [item["metadata"]["name"] for item in rest.items] == ["c2", "c3", "c4"]
    assert (rest.resource_version, rest.next) == (page.resource_version, "")
    assert "kind" not in rest.items[0]
    await keyspace.compact(store.revision)
    status = await refused(api.list(CONFIG_MAP, query={"continue": page.next}), 410, "Expired")
    assert await names(**{"continue": status["metadata"]["continue"]}) == ["c2", "c4"]


async def test_lists_of_a_revision(api: ApiClient, keyspace: Keyspace, store: ObjectStore) -> None:
    made = await api.create(CONFIG_MAP, config_map("a"))
    await api.delete(CONFIG_MAP, "a")
    version = made["metadata"]["resourceVersion"]
    exact = {"resourceVersion": version, "resourceVersionMatch": "Exact"}
    assert len((await api.list(CONFIG_MAP, query=exact)).items) == 1
    await refused(api.list(CONFIG_MAP, query={"resourceVersionMatch": "Exact"}), 400, "BadRequest")
    await refused(api.list(CONFIG_MAP, query={"resourceVersion": "abc"}), 400, "BadRequest")
    status = await refused(api.list(CONFIG_MAP, query={"resourceVersion": "99999"}), 504, "Timeout")
    assert status["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    await keyspace.compact(store.revision)
    await refused(api.list(CONFIG_MAP, query=exact), 410, "Expired")


async def test_tables_have_rows_of_metadata_or_whole_objects(api: ApiClient) -> None:
    await api.create(BUNDLE, bundle("shop", service="mariadb"))
    table = (await api.request("GET", BUNDLES, headers={"Accept": TABLE})).json()
    columns = [(column["name"], column["priority"]) for column in table["columnDefinitions"]]
    assert columns == [
        ("Name", 0),
        ("Service", 0),
        ("Ready", 0),
        ("Status", 0),
        ("Age", 0),
        ("Image", 1),
        ("Message", 1),
    ]
    row = table["rows"][0]
    assert row["cells"][:4] == ["shop", "mariadb", "Unknown", "Pending"]
    assert row["object"]["kind"] == "PartialObjectMetadata"
    query = {"includeObject": "Object"}
    one = await api.request("GET", f"{BUNDLES}/shop", headers={"Accept": TABLE}, query=query)
    assert one.json()["rows"][0]["object"]["spec"]["service"] == "mariadb"


async def test_actions_change_the_bundle(api: ApiClient) -> None:
    await api.create(BUNDLE, bundle("shop"))
    assert (await api.call(BUNDLE, "shop", "actions/stop")).json()["spec"]["start"] is False
    assert (await api.call(BUNDLE, "shop", "actions/start")).json()["spec"]["start"] is True
    first = (await api.call(BUNDLE, "shop", "actions/restart")).json()["metadata"]["annotations"]
    second = (await api.call(BUNDLE, "shop", "actions/restart")).json()["metadata"]["annotations"]
    assert first != second
    assert (await api.call(BUNDLE, "shop", "actions/uninstall")).json()["metadata"]["deletionTimestamp"]
    await refused(api.call(BUNDLE, "shop", "actions/explode"), 404, "NotFound", "start, stop, restart, uninstall")


async def test_pods_are_made_by_controllers_only(api: ApiClient) -> None:
    await refused(api.create(POD, pod("a")), 405, "MethodNotAllowed", "delete, deletecollection, get, list, watch")
    await refused(api.call(POD, "a", "log", method="GET"), 503, "ServiceUnavailable")


async def test_who_may_do_what(api: ApiClient) -> None:
    guest, nobody = api.acting_as(GUEST), api.acting_as(NOBODY)
    status = await refused(guest.list(CONFIG_MAP), 403, "Forbidden")
    assert status["message"] == (
        'configmaps is forbidden: User "guest" cannot list resource "configmaps" in API group "" '
        'in the namespace "default"'
    )
    assert (await guest.request("GET", "/apis")).code == 200
    await refused(nobody.request("GET", "/api"), 401, "Unauthorized")
    for path in ("/healthz", "/livez", "/readyz", "/version", "/version/"):
        assert (await nobody.request("GET", path)).code == 200


async def test_discovery_in_both_forms(api: ApiClient) -> None:
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    answer = await api.request("GET", "/apis", headers={"Accept": accept})
    assert "as=APIGroupDiscoveryList" in answer.headers["content-type"]
    [group] = answer.json()["items"]
    bundles = group["versions"][0]["resources"][0]
    assert (group["metadata"]["name"], bundles["resource"], bundles["shortNames"]) == (
        "nanocloud.io",
        "bundles",
        ["bd"],
    )
    again = await api.request("GET", "/apis", headers={"Accept": accept, "If-None-Match": answer.headers["etag"]})
    assert again.code == 304
    listed = (await api.request("GET", "/api/v1")).json()
    assert "pods/log" in [resource["name"] for resource in listed["resources"]]
    assert (await api.request("GET", "/apis/nanocloud.io/")).json()["kind"] == "APIGroup"
    assert (await api.request("GET", "/api/")).json()["kind"] == "APIVersions"
    await refused(api.request("GET", "/apis/nope/v1"), 404, "NotFound")
    await refused(api.request("GET", "/api/v1/nopes"), 404, "NotFound")
    await refused(api.request("GET", "/apis/nope/v1/nopes"), 404, "NotFound")


async def test_openapi_is_cached_by_its_hash(api: ApiClient) -> None:
    paths = (await api.request("GET", "/openapi/v3")).json()["paths"]
    answer = await api.request("GET", paths["apis/nanocloud.io/v1"]["serverRelativeURL"])
    assert "immutable" in answer.headers["cache-control"]
    document = answer.json()
    assert document["components"]["schemas"]["io.nanocloud.v1.Bundle"]["properties"]["spec"]["required"] == ["service"]
    operation = document["paths"]["/apis/nanocloud.io/v1/namespaces/{namespace}/bundles/{name}"]["patch"]
    assert "fieldValidation" in [parameter["name"] for parameter in operation["parameters"]]
    assert (await api.request("GET", "/openapi/v2")).json()["swagger"] == "2.0"


async def test_a_collection_is_deleted_by_selector(api: ApiClient) -> None:
    for name in ("a", "b"):
        await api.create(CONFIG_MAP, config_map(name, labels={"name": name}))
    await api.request("DELETE", MAPS, query={"labelSelector": "name=a"})
    assert [item["metadata"]["name"] for item in (await api.list(CONFIG_MAP)).items] == ["b"]


async def test_routes_of_plugins_are_asked_first_whatever_they_begin_with(store: ObjectStore) -> None:
    def says(text: str) -> Any:
        async def answer(request: Request) -> Response:
            return JSONResponse({"said": text, "params": dict(request.path_params)})

        return answer

    routes = [
        Route("/apis/extra/v1/{what}", says("one"), methods=["GET"]),
        Route("/{first}/{second}/anything", says("two"), methods=["GET"]),
        Mount("/below", routes=[Route("/{rest:path}", says("three"))]),
    ]
    api = ApiClient.over(store, routes=routes)
    assert (await api.request("GET", "/apis/extra/v1/it")).json() == {"said": "one", "params": {"what": "it"}}
    assert (await api.request("GET", "/api/v1/anything")).json()["said"] == "two"
    assert (await api.request("GET", "/below/a/b")).json()["said"] == "three"
    assert (await api.request("GET", MAPS)).json()["kind"] == "ConfigMapList"
    await refused(api.request("POST", "/apis/extra/v1/it", {}), 404, "NotFound")
    guest = ApiClient.over(store, routes=routes, caller=GUEST)
    await refused(guest.request("GET", "/below/a"), 403, "Forbidden", 'cannot get path "/below/a"')
