"""Images reach the node's layout whole or not at all, and stay apart by service."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from nanocloud.errors import CorruptError
from nanocloud_dockyard import layout_writer


def staged(folder: Path, *, layer: bytes = b"layer") -> Path:
    """A layout with one image, as the builder exports it."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(content: bytes) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"digest": f"sha256:{digest}", "size": len(content)}

    manifest = {"config": blob(b"{}"), "layers": [blob(layer)]}
    descriptor = blob(json.dumps(manifest).encode()) | {"annotations": {layout_writer.REF_NAME: "image"}}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [descriptor]}))
    return folder


def publish(tmp_path: Path, service: str, *, layer: bytes = b"layer", recipe: str = "r") -> layout_writer.Published:
    source = staged(tmp_path / f"{service}-{layer.decode()}", layer=layer)
    return layout_writer.publish(tmp_path / "layout", source, service, recipe=recipe, created="2026-01-01T00:00:00Z")


def test_services_stand_side_by_side_and_share_blobs(tmp_path: Path) -> None:
    one, two = publish(tmp_path, "one"), publish(tmp_path, "two")
    assert one.digest == two.digest
    assert layout_writer.published(tmp_path / "layout") == {"one": one, "two": two}
    assert len(list((tmp_path / "layout" / "blobs" / "sha256").iterdir())) == 3
    assert json.loads((tmp_path / "layout" / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}


def test_a_new_image_replaces_the_old_one_whose_blobs_stay_for_the_collector(tmp_path: Path) -> None:
    old = publish(tmp_path, "one", layer=b"old", recipe="a")
    new = publish(tmp_path, "one", layer=b"new", recipe="b")
    assert layout_writer.published(tmp_path / "layout") == {"one": new}
    assert (tmp_path / "layout" / "blobs" / "sha256" / old.digest.removeprefix("sha256:")).exists()


def test_an_image_that_lost_a_blob_does_not_count(tmp_path: Path) -> None:
    image = publish(tmp_path, "one")
    layer = tmp_path / "layout" / "blobs" / "sha256" / hashlib.sha256(b"layer").hexdigest()
    layer.write_bytes(b"lay")
    assert layout_writer.published(tmp_path / "layout") == {}
    layer.unlink()
    assert publish(tmp_path / "again", "one").digest == image.digest
    assert layout_writer.published(tmp_path / "layout") == {}


def test_a_staged_image_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    source = staged(tmp_path / "staged")
    (source / "blobs" / "sha256" / hashlib.sha256(b"layer").hexdigest()).unlink()
    with pytest.raises(CorruptError, match="does not hold every blob"):
        layout_writer.publish(tmp_path / "layout", source, "one", recipe="r", created="")
    assert layout_writer.published(tmp_path / "layout") == {}


def test_publishing_again_after_a_crash_before_the_index_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(layout_writer, "sync_folder", crash)
    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path, "one")
    monkeypatch.undo()
    assert layout_writer.published(tmp_path / "layout") == {}
    source = staged(tmp_path / "second")
    image = layout_writer.publish(tmp_path / "layout", source, "one", recipe="r", created="")
    assert layout_writer.published(tmp_path / "layout") == {"one": image}


@pytest.mark.parametrize("text", ["{", "[]", '{"manifests": 5}'])
def test_a_broken_index_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(CorruptError, match=r"index\.json"):
        layout_writer.published(tmp_path)


def test_entries_that_no_build_made_are_passed_over(tmp_path: Path) -> None:
    image = publish(tmp_path, "one")
    file = tmp_path / "layout" / "index.json"
    index = json.loads(file.read_bytes())
    annotations = {layout_writer.REF_NAME: "other"}
    index["manifests"] += [
        {"digest": "sha256:../../../../etc/passwd", "size": 1, "annotations": annotations},
        {"digest": "md5:0", "size": 1, "annotations": annotations},
    ]
    file.write_text(json.dumps(index))
    assert layout_writer.published(tmp_path / "layout") == {"one": image}
