"""Index, manifest and configuration: read strictly, for this machine."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanocloud.errors import ImageError
from nanocloud_dockyard.media import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Platform,
    media_type_of,
    parse_configuration,
    parse_index,
    parse_manifest,
    select,
)

DIGEST = "sha256:" + "ab" * 32
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST, "size": 10}
CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 10}


def data(document):
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("document", "stated", "expected"),
    [
        ({"manifests": []}, OCI_INDEX, OCI_INDEX),
        ({"manifests": []}, "", OCI_INDEX),
        ({"manifests": [], "mediaType": DOCKER_LIST}, "application/json", DOCKER_LIST),
        ({"layers": [], "config": {}}, f"{DOCKER_MANIFEST}; charset=utf-8", DOCKER_MANIFEST),
        ({"layers": [], "config": {}}, "", OCI_MANIFEST),
    ],
)
def test_the_media_type_is_what_all_signs_say(document, stated, expected):
    assert media_type_of(data(document), stated, "it") == expected


@pytest.mark.parametrize(
    ("document", "stated", "says"),
    [
        ({"manifests": [], "layers": []}, OCI_INDEX, "ambiguous"),  # CVE-2021-41190
        ({"manifests": []}, OCI_MANIFEST, "ambiguous"),
        ({"layers": []}, OCI_INDEX, "ambiguous"),
        ({}, OCI_MANIFEST, "ambiguous"),
        ({"manifests": [], "mediaType": OCI_INDEX}, DOCKER_LIST, "by its own words"),
        ({"manifests": [], "mediaType": "text/html"}, "", "is no image"),
        ([], OCI_INDEX, "the document must be an object"),
        ({"mediaType": 5}, "", "mediaType must be a string"),
    ],
)
def test_what_could_be_two_things_is_refused(document, stated, says):
    with pytest.raises(ImageError, match=says):
        media_type_of(data(document), stated, "it")


def test_json_that_nests_without_end_is_refused():
    with pytest.raises(ImageError, match="is not JSON"):
        media_type_of(b"[" * 100_000, "", "it")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"config": None}, "config must be an object"),
        ({"config": {**CONFIG, "mediaType": "application/vnd.cncf.helm.config.v1+json"}}, "is no container image"),
        ({"config": {**CONFIG, "size": 1 << 40}}, "a configuration over"),
        ({"layers": None}, "layers must be a list of at most 127"),
        ({"layers": [LAYER] * 128}, "layers must be a list of at most 127"),
        ({"layers": [{**LAYER, "size": -1}]}, r"layers\[0\].size must be a number of bytes"),
        ({"layers": [{**LAYER, "size": True}]}, r"layers\[0\].size must be a number of bytes"),
        ({"layers": [{**LAYER, "digest": "sha256:../../etc"}]}, r"layers\[0\].digest must be sha256"),
        ({"layers": [{**LAYER, "digest": "sha512:" + "a" * 128}]}, r"layers\[0\].digest must be sha256"),
        ({"layers": [LAYER, {**LAYER, "mediaType": "application/zip"}]}, "'application/zip', which is no layer"),
        ({"layers": ["x"]}, r"layers\[0\] must be an object"),
    ],
)
def test_a_broken_manifest_is_refused_by_field(change, says):
    with pytest.raises(ImageError, match=says):
        parse_manifest(data({"config": CONFIG, "layers": [LAYER]} | change), "it")


def test_a_configuration_says_how_to_run():
    configuration = parse_configuration(
        data(
            {
                "os": "linux",
                "architecture": "arm64",
                "variant": "v8",
                "rootfs": {"diff_ids": [DIGEST]},
                "config": {
                    "Entrypoint": ["/bin/sh"],
                    "Cmd": None,
                    "Env": ["PATH=/bin", "A=b=c", "EMPTY="],
                    "WorkingDir": "srv/./x",
                    "User": "5:6",
                    "Labels": {"io.nanocloud.options": "{}"},
                    "ExposedPorts": {"80/tcp": {}},
                    "Volumes": {"/data": {}},
                    "Unknown": 1,
                },
            }
        ),
        "it",
    )
    assert configuration.platform == Platform(os="linux", architecture="arm64", variant="v8")
    assert configuration.diff_ids == (DIGEST,)
    config = configuration.config
    assert (config.entrypoint, config.command, config.user) == (("/bin/sh",), (), "5:6")
    assert config.environment == {"PATH": "/bin", "A": "b=c", "EMPTY": ""}
    assert (config.working_directory, config.stop_signal) == ("/srv/x", "SIGTERM")
    assert (config.exposed_ports, config.volumes) == (("80/tcp",), ("/data",))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"Env": "A=b"}, "config.Env must be a list of strings"),
        ({"Env": ["A=\0"]}, "config.Env must be a list of strings without NUL"),
        ({"Labels": {"a": 1}}, "config.Labels must be an object of strings"),
        ({"User": 0}, "config.User must be a string"),
        ({"ExposedPorts": ["80"]}, "config.ExposedPorts must be an object"),
        ([], "config must be an object"),
    ],
)
def test_a_broken_configuration_is_refused_by_field(config, says):
    with pytest.raises(ImageError, match=says):
        parse_configuration(data({"rootfs": {"diff_ids": []}, "config": config}), "it")


def test_diff_ids_are_digests():
    with pytest.raises(ImageError, match=r"rootfs\.diff_ids must be"):
        parse_configuration(data({"rootfs": {"diff_ids": ["../x"]}}), "it")


def descriptor(number, architecture=None, variant="", os="linux"):
    return Descriptor(
        media_type=OCI_MANIFEST,
        digest=f"sha256:{number:064x}",
        size_bytes=1,
        platform=Platform(os=os, architecture=architecture, variant=variant) if architecture else None,
    )


@pytest.mark.parametrize(
    ("here", "offered", "chosen"),
    [
        (("amd64", ""), [("arm64", "v8"), ("amd64", "")], 1),
        (("amd64", ""), [("amd64", "v3"), ("amd64", "")], 1),
        (("arm64", "v8"), [("arm64", ""), ("arm64", "v8")], 1),
        (("arm64", "v8"), [("arm", "v7"), ("arm64", "")], 1),
        (("arm", "v7"), [("arm", "v6"), ("arm", "v7")], 1),
    ],
)
def test_the_fitting_image_of_an_index_is_taken(here, offered, chosen):
    descriptors = tuple(descriptor(number, *platform) for number, platform in enumerate(offered))
    machine = Platform(os="linux", architecture=here[0], variant=here[1])
    assert select(descriptors, machine, "it") == descriptors[chosen]


def test_an_index_without_this_machine_says_what_it_has():
    offered = (descriptor(1, "arm64", "v8"), descriptor(2, "amd64", os="windows"), descriptor(3, "x", os="unknown"))
    with pytest.raises(ImageError, match=r"no image for linux/amd64; it has linux/arm64/v8, windows/amd64$"):
        select(offered, Platform(os="linux", architecture="amd64"), "it")


def test_an_index_has_an_end():
    entry = {"mediaType": OCI_MANIFEST, "digest": DIGEST, "size": 1}
    assert len(parse_index(data({"manifests": [entry] * 1024}), "it")) == 1024
    with pytest.raises(ImageError, match="at most 1024"):
        parse_index(data({"manifests": [entry] * 1025}), "it")


_FIELDS = ["config", "layers", "manifests", "mediaType", "digest", "size", "platform", "rootfs", "diff_ids", "Env"]
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "config",
                    "layers",
                    "manifests",
                    "mediaType",
                    "digest",
                    "size",
                    "platform",
                    "os",
                    "rootfs",
                    "diff_ids",
                    "Env",
                    "Labels",
                    "annotations",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(_json)
def test_any_json_is_read_or_refused(document):
    for parse in (parse_index, parse_manifest, parse_configuration, lambda raw, what: media_type_of(raw, "", what)):
        try:
            parse(data(document), "it")
        except ImageError:
            pass
