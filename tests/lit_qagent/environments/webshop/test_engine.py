import pytest

from lit_qagent.core.errors import ConfigError
from lit_qagent.environments.webshop.catalog import CatalogSpec, generate_catalog
from lit_qagent.environments.webshop.engine import PageSpec, Shop, ShopState
from lit_qagent.environments.webshop.pages import render_page
from tests.lit_qagent.environments.webshop.shop_parts import LAMP, SHIRT

SHOP = Shop([SHIRT, LAMP], PageSpec())


def click(shop: Shop, state: ShopState, *values: str) -> ShopState:
    for value in values:
        following = shop.click(state, value)
        assert following is not None, value
        state = following
    return state


def test_search_finds_titles_and_options() -> None:
    assert SHOP.search("painted lamps").found == (1,)
    assert set(SHOP.search("red").found) == {0, 1}
    assert SHOP.search("zebra").found == ()


def test_clicks_are_compared_in_lower_case() -> None:
    state = click(SHOP, SHOP.search("shirt"), "b100", "RED", " Blue ", "small")
    assert state.options == {"color": "blue", "size": "small"}
    assert click(SHOP, state, "buy now").page == "end"


@pytest.mark.parametrize("value", ["", "B999", "Buy Now", "red", "Next >", "< Prev"])
def test_what_is_not_on_the_page_cannot_be_clicked(value: str) -> None:
    assert SHOP.click(SHOP.search("shirt"), value) is None


def test_ways_back() -> None:
    item = click(SHOP, SHOP.search("shirt"), "B100", "red")
    sub = click(SHOP, item, "Description")
    assert SHOP.clickables(sub) == ("< Prev", "Back to Search")
    assert click(SHOP, sub, "< Prev") == item
    assert click(SHOP, item, "< Prev").page == "results"
    assert click(SHOP, item, "Back to Search") == ShopState()


def test_options_belong_to_one_product() -> None:
    results = SHOP.search("red")
    item = click(SHOP, results, "B100", "red")
    assert click(SHOP, item, "< Prev", "B100").options == {"color": "red"}
    assert click(SHOP, item, "< Prev", "B200").options == {}


def test_pages_of_results() -> None:
    shop = Shop(generate_catalog(CatalogSpec(num_products=90)), PageSpec(page_size=2))
    first = shop.search("shirt")
    assert len(first.found) == 3
    assert shop.clickables(first)[2:] == ("Next >", "Back to Search")
    second = click(shop, first, "Next >")
    assert shop.clickables(second) == (
        shop.product(first.found[2]).asin,
        "< Prev",
        "Back to Search",
    )
    assert click(shop, second, "< Prev") == first
    assert render_page(shop, second, "", "compact").startswith("Page 2 of 2\n[")


def test_max_results_ends_the_list() -> None:
    spec = PageSpec(page_size=2, max_results=2)
    shop = Shop(generate_catalog(CatalogSpec(num_products=90)), spec)
    assert shop.clickables(shop.search("shirt"))[2:] == ("Back to Search",)


def test_without_back_buttons_only_a_fruitless_search_leads_back() -> None:
    shop = Shop([SHIRT, LAMP], PageSpec(back_buttons=False))
    results = shop.search("shirt")
    assert shop.clickables(results) == ("B100",)
    item = click(shop, results, "B100")
    assert shop.clickables(item)[4:] == ("Buy Now", "Description", "Features", "Reviews")
    assert shop.clickables(click(shop, item, "Features")) == ("< Prev",)
    assert shop.clickables(shop.search("zebra")) == ("Back to Search",)


def test_compact_pages() -> None:
    results = SHOP.search("red shirt")
    assert render_page(SHOP, results, "", "compact") == (
        "[B100] Lina cotton slim fit shirt, $23.50\n[B200] Orva hand painted lamp, $30.00 to $50.00"
    )
    item = click(SHOP, results, "B100", "blue")
    assert render_page(SHOP, item, "", "compact") == (
        "Lina cotton slim fit shirt, $23.50\ncolor: red, blue (chosen)\nsize: small, large"
    )
    assert render_page(SHOP, SHOP.search("zebra"), "", "compact") == "No products found."
    texts = {
        name: render_page(SHOP, click(SHOP, item, name), "", "compact")
        for name in ("Description", "Features", "Reviews")
    }
    assert texts == {
        "Description": "A shirt for every day.",
        "Features": "Cotton Slim fit Soft",
        "Reviews": "No reviews yet.",
    }


def test_pages_in_webshops_text_form() -> None:
    wish = "i need a shirt"
    results = SHOP.search("shirt")
    item = click(SHOP, results, "B100")
    pages = [
        render_page(SHOP, state, wish, "text")
        for state in (ShopState(), results, item, click(SHOP, item, "Description"))
    ]
    lead = "Instruction: [SEP] i need a shirt [SEP] Back to Search [SEP] "
    assert pages == [
        "WebShop [SEP] Instruction: [SEP] i need a shirt [SEP] Search",
        lead + "Page 1 (Total results: 1) [SEP] B100 [SEP] Lina cotton slim fit shirt [SEP] $23.50",
        lead + "< Prev [SEP] color [SEP] red [SEP] blue [SEP] size [SEP] small [SEP] large [SEP] "
        "Lina cotton slim fit shirt [SEP] Price: $23.50 [SEP] Rating: N.A. [SEP] Description "
        "[SEP] Features [SEP] Reviews [SEP] Buy Now",
        lead + "< Prev [SEP] A shirt for every day.",
    ]


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"pages\.page_size must be >= 1, got 0"):
        PageSpec(page_size=0)
    with pytest.raises(ConfigError, match=r"pages\.max_results must be >= 1, got 0"):
        PageSpec(max_results=0)
