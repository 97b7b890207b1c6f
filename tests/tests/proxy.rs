//! Behind an explicit proxy, where many companies are: the name is found after the prelude,
//! and the bytes are those that passed between client and proxy. None of it is told apart
//! from TLS by its port, since the proxy's is watched like any other.

use toktra_tests::clients::{chat, curl};
use toktra_tests::scene::{assert_exact, meter_at_proxy};

fn curl_is_metered_behind(proxy: &str) {
    let url = "https://api.openai.com/v1/chat/completions";
    let metered = meter_at_proxy(|lab| curl(lab, &["-x", proxy, "-d", &chat(50), url]));
    assert_exact(&metered, "api.openai.com", "sni");
}

#[test]
fn http_connect() {
    curl_is_metered_behind("http://proxy.example:8080");
}

#[test]
fn socks5_with_the_name_resolved_by_the_proxy() {
    curl_is_metered_behind("socks5h://proxy.example:8080");
}

#[test]
fn socks5_with_the_name_resolved_by_the_client() {
    curl_is_metered_behind("socks5://proxy.example:8080");
}

#[test]
fn socks4a() {
    curl_is_metered_behind("socks4a://proxy.example:8080");
}
