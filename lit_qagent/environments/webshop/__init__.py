"""WebShop: on a catalogue that the project generates itself, and on the original's files."""

from lit_qagent.environments.webshop.catalog import CatalogSpec
from lit_qagent.environments.webshop.engine import PageSpec
from lit_qagent.environments.webshop.environment import WebShop
from lit_qagent.environments.webshop.files_world import WebShopFiles

__all__ = ["CatalogSpec", "PageSpec", "WebShop", "WebShopFiles"]
