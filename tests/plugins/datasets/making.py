"""Small raw files, written by hand in the documented shape of each layout; not publishers' data."""

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from mmrec_bench.types import RecData
from mmrec_plugins.datasets.amazon import Amazon

Row = dict[str, Any]


def lines(rows: Iterable[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def pack(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def picture(path: Path, kind: str = "JPEG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), "red").save(path, kind)
    return path


def review_2018(
    user: str = "A1", item: str = "B000000001", time: int = 1_500_000_000, **more: object
) -> Row:
    return {
        "overall": 5.0,
        "verified": True,
        "reviewTime": "07 14, 2017",
        "reviewerID": user,
        "asin": item,
        "style": {"Size:": " Large"},
        "reviewerName": "Anne",
        "reviewText": "Good.",
        "summary": "Five Stars",
        "unixReviewTime": time,
        **more,
    }


def meta_2018(item: str = "B000000001", **more: object) -> Row:
    return {
        "category": ["Home & Kitchen", "Kitchen &amp; Dining", "Mugs"],
        "tech1": "",
        "description": ["A <b>red</b> mug.", "Holds&nbsp;0.3 l."],
        "title": "Red  Mug &amp; Saucer",
        "also_buy": [],
        "brand": "Acme",
        "feature": ["dishwasher safe"],
        "rank": [],
        "details": {"Color:\n": "Red"},
        "main_cat": "Home",
        "price": "$1,234.50",
        "asin": item,
        "imageURL": ["https://example.org/small.jpg"],
        "imageURLHighRes": ["https://example.org/large.jpg", "javascript:alert(1)"],
        **more,
    }


def review_2014(user: str = "A1", item: str = "0000031852", time: int = 1_400_000_000) -> Row:
    return {
        "reviewerID": user,
        "asin": item,
        "reviewerName": "Anne",
        "helpful": [2, 3],
        "reviewText": "Good.",
        "overall": 4.0,
        "summary": "Fine",
        "unixReviewTime": time,
        "reviewTime": "05 13, 2014",
    }


META_2014 = (
    b"""{'asin': '0000031852', 'title': "Girls' Ballet Tutu Caf\\xc3\\xa9", 'price': 3.17, """
    b"""'imUrl': 'http://example.org/a.jpg', 'related': {'also_bought': ['B00JHONN1S'], """
    b"""'buy_after_viewing': []}, 'salesRank': {'Toys & Games': 211836}, 'brand': 'Coxlures', """
    b"""'categories': [['Sports & Outdoors'], ['Clothing', 'Girls', 'Tutus']]}\n"""
)


def review_2023(
    user: str = "AE2", item: str = "B00YQ6X8EO", time: int = 1_588_687_728_923, **more: object
) -> Row:
    return {
        "rating": 5.0,
        "title": "Great",
        "text": "Good.",
        "images": [],
        "asin": "B00VARIANT",
        "parent_asin": item,
        "user_id": user,
        "timestamp": time,
        "helpful_vote": 0,
        "verified_purchase": True,
        **more,
    }


def meta_2023(item: str = "B00YQ6X8EO", **more: object) -> Row:
    return {
        "main_category": "All Beauty",
        "title": "Herbivore Face Oil",
        "average_rating": 4.8,
        "rating_number": 10,
        "features": ["Vegan", "Blue"],
        "description": [],
        "price": 12.5,
        "images": [
            {
                "thumb": "https://example.org/t1.jpg",
                "large": "https://example.org/l1.jpg",
                "variant": "PT01",
                "hi_res": None,
            },
            {
                "thumb": "https://example.org/t.jpg",
                "large": "https://example.org/l.jpg",
                "variant": "MAIN",
                "hi_res": "https://example.org/h.jpg",
            },
        ],
        "videos": [],
        "store": "Herbivore",
        "categories": [],
        "details": {"Brand": "Herbivore Botanicals", "Material": "Glass", "Color": 3},
        "parent_asin": item,
        "bought_together": None,
        **more,
    }


def count_sum(counts: Mapping[str, int], names: Iterable[str]) -> int:
    return sum(counts[name] for name in names)


def load_amazon(root: Path, **options: object) -> RecData:
    return Amazon(Amazon.Config.model_validate(options)).load(root)
