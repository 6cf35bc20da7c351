from recent_popularity.model import RecentPopularity

from mmrec_bench.plugins import installed
from mmrec_bench.testing import RecommenderTests, check_light_import


class TestRecentPopularity(RecommenderTests):
    def make(self) -> RecentPopularity:
        return RecentPopularity(RecentPopularity.Config())


def test_it_is_found_by_its_entry_point() -> None:
    assert installed()["model"].find("recent-popularity").owner == "recent-popularity"


def test_listing_names_imports_nothing_heavy() -> None:
    check_light_import("recent_popularity")
