"""A shop in WebShop's form on a catalogue that the project generates itself."""

from lit_qagent.environments.webshop.catalog import CatalogSpec
from lit_qagent.environments.webshop.engine import PageSpec
from lit_qagent.environments.webshop.environment import WebShop

__all__ = ["CatalogSpec", "PageSpec", "WebShop"]
