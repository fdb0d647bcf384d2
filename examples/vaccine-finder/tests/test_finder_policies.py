"""Who may do what, and which way requests go, as the manifests say it; no mesh is started."""

from tulle.testing.policy import PolicyMesh


def test_only_the_web_page_reads_members(mesh: PolicyMesh) -> None:
    assert mesh.call("web", "members:8080", "/Members/Get").allowed
    assert mesh.call("slots", "members:8080", "/Members/Get").denied_by("members-readers")
