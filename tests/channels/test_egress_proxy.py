import pytest

from channels.egress_proxy import EgressProxy, egress_proxy
from core.errors import ConfigurationError
from core.settings import Settings
from runtime.resources import open_resources
from storage.sealing import new_master_key

NO_PROXIES = [
    *("proxy:3128", "https://proxy:3128", "http://proxy", "http://:3128", "http://proxy:x", "http://p:1/path"),
    *("http://p:1/?q", "socks5://p:1", "http://[p:1", "http://pro xy:1", "http://é:1", "http://p<y:1"),
]


@pytest.mark.parametrize("text", NO_PROXIES)
async def test_what_is_no_address_of_a_proxy_is_refused_at_the_start(text: str) -> None:
    settings = Settings(
        database_url="postgres://u:p@127.0.0.1:9/x",
        redis_url="redis://127.0.0.1:9/0",
        public_url="http://127.0.0.1:1",
        nodrop_master_keys=new_master_key("first"),
        egress_proxy=text,
    )
    with pytest.raises(ConfigurationError, match=r"^EGRESS_PROXY: set it to http://user:password@host:3128$"):
        async with open_resources(settings):
            pass


def test_a_proxy_may_ask_for_a_password() -> None:
    proxy = egress_proxy(Settings(egress_proxy="http://nodrop:p%40ss@proxy.internal:3128/"))
    assert proxy == EgressProxy(host="proxy.internal", port=3128, user="nodrop", password="p@ss")
    assert repr(proxy) == "EgressProxy(proxy.internal:3128)"
    assert egress_proxy(Settings()) is None
