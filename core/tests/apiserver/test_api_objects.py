"""The verbs on objects, over HTTP and a real keyspace."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from nanocloud.keyspace import Keyspace
from nanocloud.objects import ObjectStore

MAPS = "/api/v1/namespaces/default/configmaps"
BUNDLES = "/apis/nanocloud.io/v1/namespaces/default/bundles"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io, application/json"


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": data}


def bundle(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "nanocloud.io/v1",
        "kind": "Bundle",
        "metadata": {"name": name},
        "spec": {"service": "mariadb"} | spec,
    }


def refused(answer: httpx2.Response, code: int, reason: str, text: str = "") -> dict[str, Any]:
    status: dict[str, Any] = answer.json()
    assert (answer.status_code, status["kind"], status["code"], status["reason"]) == (code, "Status", code, reason)
    assert text in status["message"], status["message"]
    return status


async def test_create_read_delete(client: httpx2.AsyncClient) -> None:
    made = await client.post(MAPS, json=config_map("a", x="1"))
    assert made.status_code == 201
    assert made.json()["metadata"]["namespace"] == "default"
    assert (await client.get(f"{MAPS}/a")).json() == made.json()
    gone = await client.delete(f"{MAPS}/a")
    assert gone.json()["status"] == "Success"
    assert gone.json()["details"]["uid"] == made.json()["metadata"]["uid"]
    status = refused(await client.get(f"{MAPS}/a"), 404, "NotFound", 'configmaps "a" not found')
    assert status["details"] == {"name": "a", "kind": "configmaps"}


async def test_create_refuses_what_does_not_fit_the_path(client: httpx2.AsyncClient) -> None:
    body = config_map("a")
    refused(await client.post(MAPS, json=body | {"kind": "Pod"}), 400, "BadRequest", "this path takes 'ConfigMap'")
    elsewhere = {"metadata": {"name": "a", "namespace": "other"}}
    refused(await client.post(MAPS, json=elsewhere), 400, "BadRequest", "namespace of the provided object")
    refused(await client.post("/api/v1/namespaces/nope/configmaps", json=body), 404, "NotFound", 'namespaces "nope"')
    status = refused(await client.post(MAPS, json={"metadata": {}}), 422, "Invalid")
    assert status["details"]["causes"][0]["reason"] == "FieldValueRequired"
    refused(await client.post(MAPS, json=config_map("A_b")), 422, "Invalid", "RFC 1123")
    await client.post(MAPS, json=body)
    refused(await client.post(MAPS, json=body), 409, "AlreadyExists")
    refused(await client.post("/api/v1/configmaps", json=body), 405, "MethodNotAllowed")
    refused(await client.post(f"{MAPS}/a", json=body), 405, "MethodNotAllowed")


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
        (b" " * (3 * 1024 * 1024 + 1), "application/json", 413, "RequestEntityTooLarge"),
    ],
)
async def test_bad_bodies_get_one_clear_answer(
    client: httpx2.AsyncClient, body: bytes, media: str, code: int, reason: str
) -> None:
    refused(await client.post(MAPS, content=body, headers={"Content-Type": media}), code, reason)


async def test_a_yaml_body_and_a_yaml_answer(client: httpx2.AsyncClient) -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  on: 'yes'\n"
    headers = {"Content-Type": "application/yaml", "Accept": "application/yaml"}
    made = await client.post(MAPS, content=text, headers=headers)
    assert made.status_code == 201
    assert "'on': 'yes'" in made.text
    assert refused(await client.get(MAPS, headers={"Accept": "text/xml"}), 406, "NotAcceptable")


async def test_a_bad_bundle_names_every_field(client: httpx2.AsyncClient) -> None:
    body = bundle("shop", start="yes", options={"port": 3306}, security={"seccompProfile": "None"})
    status = refused(await client.post(BUNDLES, json=body), 422, "Invalid")
    assert {cause["field"] for cause in status["details"]["causes"]} == {
        "spec.start",
        "spec.options.port",
        "spec.security.seccompProfile",
    }
    assert 'one of "Baseline", "RuntimeDefault", "Localhost"' in status["message"]
    assert (status["details"]["kind"], status["details"]["group"]) == ("Bundle", "nanocloud.io")


async def test_unknown_fields_are_refused_warned_about_or_ignored(client: httpx2.AsyncClient) -> None:
    body = bundle("shop", optons={})
    answer = await client.post(BUNDLES, json=body, params={"fieldValidation": "Strict"})
    refused(answer, 400, "BadRequest", 'strict decoding error: unknown field "spec.optons"')
    answer = await client.post(BUNDLES, json=body, params={"dryRun": "All"})
    assert answer.headers["warning"] == r'299 - "unknown field \"spec.optons\""'
    assert "optons" not in answer.json()["spec"]
    answer = await client.post(BUNDLES, json=body, params={"dryRun": "All", "fieldValidation": "Ignore"})
    assert "warning" not in answer.headers
    assert (await client.get(BUNDLES)).json()["items"] == []


async def test_updates_need_the_present_revision(client: httpx2.AsyncClient) -> None:
    made = (await client.post(BUNDLES, json=bundle("shop"))).json()
    made["spec"]["start"] = False
    answer = await client.put(f"{BUNDLES}/shop", json=made)
    assert answer.json()["metadata"]["generation"] == 2
    refused(await client.put(f"{BUNDLES}/shop", json=made), 409, "Conflict", "the object has been modified")
    del made["metadata"]["resourceVersion"]
    refused(await client.put(f"{BUNDLES}/shop", json=made), 422, "Invalid", "must be specified for an update")
    made["metadata"]["name"] = "other"
    refused(await client.put(f"{BUNDLES}/shop", json=made), 400, "BadRequest", "does not match the name on the URL")
    await client.post(MAPS, json=config_map("a"))
    assert (await client.put(f"{MAPS}/a", json=config_map("a", x="2"))).json()["data"] == {"x": "2"}


async def test_status_is_a_path_of_its_own(client: httpx2.AsyncClient) -> None:
    body = bundle("shop") | {"status": {"phase": "Running"}}
    made = (await client.post(BUNDLES, json=body)).json()
    assert "status" not in made
    made["status"] = {"phase": "Running"}
    made["spec"]["start"] = False
    answer = (await client.put(f"{BUNDLES}/shop/status", json=made)).json()
    assert (answer["status"], answer["spec"]["start"]) == ({"phase": "Running"}, True)
    refused(await client.post(f"{BUNDLES}/shop/status", json=made), 405, "MethodNotAllowed")
    refused(await client.get(f"{BUNDLES}/shop/nothing"), 404, "NotFound")


async def test_patches(client: httpx2.AsyncClient) -> None:
    await client.post(MAPS, json=config_map("a", x="1", y="2"))

    async def patch(kind: str, body: Any, path: str = f"{MAPS}/a") -> httpx2.Response:
        return await client.patch(path, json=body, headers={"Content-Type": f"application/{kind}+json"})

    answer = await patch("merge-patch", {"data": {"x": None, "z": "3"}})
    assert answer.json()["data"] == {"y": "2", "z": "3"}
    operations = [{"op": "test", "path": "/data/y", "value": "2"}, {"op": "remove", "path": "/data/z"}]
    assert (await patch("json-patch", operations)).json()["data"] == {"y": "2"}
    refused(await patch("json-patch", operations), 422, "Invalid", "no such path")
    refused(await patch("json-patch", {}), 400, "BadRequest", "list of operations")
    before = (await client.get(f"{MAPS}/a")).json()
    assert (await patch("strategic-merge-patch", {"data": {"y": "2"}})).json() == before
    stale = {"metadata": {"resourceVersion": "1"}, "data": {"y": "9"}}
    refused(await patch("merge-patch", stale), 409, "Conflict")
    refused(await patch("merge-patch", {"metadata": {"name": "b"}}), 400, "BadRequest")
    refused(
        await patch("json-patch", [{"op": "remove", "path": "/metadata"}, {"op": "add", "path": "", "value": 1}]),
        400,
        "BadRequest",
    )
    await client.post(BUNDLES, json=bundle("shop"))
    refused(
        await patch("strategic-merge-patch", {}, f"{BUNDLES}/shop"), 415, "UnsupportedMediaType", "merge-patch+json"
    )
    refused(await client.patch(f"{MAPS}/a", json={}), 415, "UnsupportedMediaType")
    refused(await patch("merge-patch", {}, f"{MAPS}/none"), 404, "NotFound")


async def test_finalizers_hold_a_bundle(client: httpx2.AsyncClient) -> None:
    made = (await client.post(BUNDLES, json=bundle("shop"))).json()
    wrong = {"preconditions": {"uid": "other"}}
    refused(await client.request("DELETE", f"{BUNDLES}/shop", json=wrong), 409, "Conflict")
    refused(await client.request("DELETE", f"{BUNDLES}/shop", json={"propagationPolicy": "No"}), 400, "BadRequest")
    right = {"preconditions": {"uid": made["metadata"]["uid"]}, "propagationPolicy": "Background"}
    marked = await client.request("DELETE", f"{BUNDLES}/shop", json=right)
    assert marked.json()["metadata"]["deletionTimestamp"]
    assert (await client.delete(f"{BUNDLES}/shop")).status_code == 200
    headers = {"Content-Type": "application/merge-patch+json"}
    await client.patch(f"{BUNDLES}/shop", json={"metadata": {"finalizers": None}}, headers=headers)
    refused(await client.get(f"{BUNDLES}/shop"), 404, "NotFound")


async def test_lists_select_and_page(client: httpx2.AsyncClient, keyspace: Keyspace, store: ObjectStore) -> None:
    for index in range(5):
        body = config_map(f"c{index}")
        body["metadata"]["labels"] = {"odd": str(index % 2)}
        await client.post(MAPS, json=body)

    async def names(**params: str) -> list[str]:
        return [item["metadata"]["name"] for item in (await client.get(MAPS, params=params)).json()["items"]]

    assert await names(labelSelector="odd=1") == ["c1", "c3"]
    assert await names(labelSelector="odd notin (1),!nope") == ["c0", "c2", "c4"]
    assert await names(fieldSelector="metadata.name=c2,metadata.name=c2") == ["c2"]
    assert await names(fieldSelector="metadata.name!=c2", labelSelector="odd=0") == ["c0", "c4"]
    for params in ({"labelSelector": "a in"}, {"fieldSelector": "spec.x=1"}, {"continue": "x"}, {"limit": "-1"}):
        refused(await client.get(MAPS, params=params), 400, "BadRequest")
    page = (await client.get(MAPS, params={"limit": "2"})).json()
    await client.delete(f"{MAPS}/c3")
    token = page["metadata"]["continue"]
    rest = (await client.get(MAPS, params={"limit": "9", "continue": token})).json()
    assert [item["metadata"]["name"] for item in rest["items"]] == ["c2", "c3", "c4"]
    assert rest["metadata"] == {"resourceVersion": page["metadata"]["resourceVersion"]}
    assert "kind" not in rest["items"][0]
    await keyspace.compact(store.revision)
    status = refused(await client.get(MAPS, params={"continue": token}), 410, "Expired")
    rest = (await client.get(MAPS, params={"continue": status["metadata"]["continue"]})).json()
    assert [item["metadata"]["name"] for item in rest["items"]] == ["c2", "c4"]


async def test_lists_of_a_revision(client: httpx2.AsyncClient, keyspace: Keyspace, store: ObjectStore) -> None:
    made = (await client.post(MAPS, json=config_map("a"))).json()
    await client.delete(f"{MAPS}/a")
    version = made["metadata"]["resourceVersion"]
    exact = {"resourceVersion": version, "resourceVersionMatch": "Exact"}
    assert len((await client.get(MAPS, params=exact)).json()["items"]) == 1
    refused(await client.get(MAPS, params={"resourceVersionMatch": "Exact"}), 400, "BadRequest")
    refused(await client.get(MAPS, params={"resourceVersion": "abc"}), 400, "BadRequest")
    status = refused(await client.get(MAPS, params={"resourceVersion": "99999"}), 504, "Timeout")
    assert status["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    await keyspace.compact(store.revision)
    refused(await client.get(MAPS, params=exact), 410, "Expired")


async def test_tables_have_rows_of_metadata_or_whole_objects(client: httpx2.AsyncClient) -> None:
    await client.post(BUNDLES, json=bundle("shop"))
    table = (await client.get(BUNDLES, headers={"Accept": TABLE})).json()
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
    one = await client.get(f"{BUNDLES}/shop", headers={"Accept": TABLE}, params={"includeObject": "Object"})
    assert one.json()["rows"][0]["object"]["spec"]["service"] == "mariadb"


async def test_actions_change_the_bundle(client: httpx2.AsyncClient) -> None:
    await client.post(BUNDLES, json=bundle("shop"))
    assert (await client.post(f"{BUNDLES}/shop/actions/stop")).json()["spec"]["start"] is False
    assert (await client.post(f"{BUNDLES}/shop/actions/start")).json()["spec"]["start"] is True
    first = (await client.post(f"{BUNDLES}/shop/actions/restart")).json()["metadata"]["annotations"]
    second = (await client.post(f"{BUNDLES}/shop/actions/restart")).json()["metadata"]["annotations"]
    assert first != second
    assert (await client.post(f"{BUNDLES}/shop/actions/uninstall")).json()["metadata"]["deletionTimestamp"]
    refused(await client.post(f"{BUNDLES}/shop/actions/explode"), 404, "NotFound", "start, stop, restart, uninstall")


async def test_pods_are_made_by_controllers_only(client: httpx2.AsyncClient) -> None:
    pods = "/api/v1/namespaces/default/pods"
    body = {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a"}]}}
    refused(await client.post(pods, json=body), 405, "MethodNotAllowed", "delete, deletecollection, get, list, watch")
    refused(await client.get(f"{pods}/a/log"), 503, "ServiceUnavailable")


async def test_who_may_do_what(client: httpx2.AsyncClient) -> None:
    guest = {"Authorization": "Bearer guest"}
    status = refused(await client.get(MAPS, headers=guest), 403, "Forbidden")
    assert status["message"] == (
        'configmaps is forbidden: User "guest" cannot list resource "configmaps" in API group "" '
        'in the namespace "default"'
    )
    assert (await client.get("/apis", headers=guest)).status_code == 200
    nobody = httpx2.AsyncClient(transport=client._transport, base_url="https://node")
    refused(await nobody.get("/api"), 401, "Unauthorized")
    for path in ("/healthz", "/livez", "/readyz", "/version", "/version/"):
        assert (await nobody.get(path)).status_code == 200
    refused(await client.get("/api", headers={"Authorization": "Bearer forged"}), 401, "Unauthorized")


async def test_discovery_in_both_forms(client: httpx2.AsyncClient) -> None:
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    answer = await client.get("/apis", headers={"Accept": accept})
    assert "as=APIGroupDiscoveryList" in answer.headers["content-type"]
    [group] = answer.json()["items"]
    bundles = group["versions"][0]["resources"][0]
    assert (group["metadata"]["name"], bundles["resource"], bundles["shortNames"]) == (
        "nanocloud.io",
        "bundles",
        ["bd"],
    )
    again = await client.get("/apis", headers={"Accept": accept, "If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
    listed = (await client.get("/api/v1")).json()
    assert "pods/log" in [resource["name"] for resource in listed["resources"]]
    assert (await client.get("/apis/nanocloud.io/")).json()["kind"] == "APIGroup"
    assert (await client.get("/api/")).json()["kind"] == "APIVersions"
    refused(await client.get("/apis/nope/v1"), 404, "NotFound")
    refused(await client.get("/api/v1/nopes"), 404, "NotFound")
    refused(await client.get("/apis/nope/v1/nopes"), 404, "NotFound")


async def test_openapi_is_cached_by_its_hash(client: httpx2.AsyncClient) -> None:
    paths = (await client.get("/openapi/v3")).json()["paths"]
    answer = await client.get(paths["apis/nanocloud.io/v1"]["serverRelativeURL"])
    assert "immutable" in answer.headers["cache-control"]
    document = answer.json()
    assert document["components"]["schemas"]["io.nanocloud.v1.Bundle"]["properties"]["spec"]["required"] == ["service"]
    operation = document["paths"]["/apis/nanocloud.io/v1/namespaces/{namespace}/bundles/{name}"]["patch"]
    assert "fieldValidation" in [parameter["name"] for parameter in operation["parameters"]]
    assert (await client.get("/openapi/v2")).json()["swagger"] == "2.0"


async def test_a_collection_is_deleted_by_selector(client: httpx2.AsyncClient) -> None:
    for name in ("a", "b"):
        body = config_map(name)
        body["metadata"]["labels"] = {"name": name}
        await client.post(MAPS, json=body)
    await client.request("DELETE", MAPS, params={"labelSelector": "name=a"})
    assert [item["metadata"]["name"] for item in (await client.get(MAPS)).json()["items"]] == ["b"]
