"""Who may do what, and which way requests go, as the manifests say it; no mesh is started."""

from tulle.testing.policy import PolicyMesh


def test_only_the_web_page_reads_members(mesh: PolicyMesh) -> None:
    assert mesh.call("web", "members:8080", "/Members/Get").allowed
    assert mesh.call("slots", "members:8080", "/Members/Get").denied_by("members-readers")


def test_anybody_here_looks_at_free_times_and_only_the_web_page_books(mesh: PolicyMesh) -> None:
    assert mesh.call("visitors", "slots:8080", "/free?site=1").allowed
    assert mesh.call("web", "slots:8080", "/bookings", method="POST").allowed
    assert mesh.call("web", "slots:8080", "/families/7/bookings").allowed
    assert mesh.call("visitors", "slots:8080", "/bookings", method="POST").denied_by("slots-bookers")
    assert mesh.call("web", "slots:8080", "/admin").status == 404


def test_one_request_in_ten_and_all_of_the_staff_go_to_the_canary(mesh: PolicyMesh) -> None:
    assert mesh.split("web", "sites") == {"sites": 0.9, "sites-canary": 0.1}
    assert mesh.split("web", "sites", headers={"x-staff": "yes"}) == {"sites-canary": 1.0}
