//! The compiled-in catalogue holds what it promises.

use std::collections::HashSet;

use proptest::prelude::*;
use toktra_catalog::{Catalog, CatalogError, Kind, Pattern, Share, Tokens, is_ech_public_name};

const NOVEMBER_2026: u64 = 1_795_392_000;

fn service_of(host: &str) -> Option<&'static str> {
    Catalog::builtin().lookup(host).map(|service| service.id.as_str())
}

#[test]
fn it_names_at_least_sixty_services_of_thirty_providers_each_with_a_source() {
    let catalog = Catalog::builtin();
    assert!(catalog.services().len() >= 60, "{}", catalog.services().len());
    assert!(catalog.providers().len() >= 30, "{}", catalog.providers().len());
    assert!(catalog.services().iter().all(|service| service.source.starts_with("https://")));
}

#[test]
fn identifiers_are_unique_and_fit_their_columns() {
    let catalog = Catalog::builtin();
    let ids: Vec<&str> = catalog.services().iter().map(|service| service.id.as_str()).collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    let providers: HashSet<&str> = catalog.providers().iter().map(|provider| provider.id.as_str()).collect();
    assert_eq!(providers.len(), catalog.providers().len());
    let plain = |id: &str| id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    assert!(ids.iter().chain(providers.iter()).all(|id| plain(id) && id.len() <= 64));
}

/// Fills every `*` with a word; the name must come back to its own service, so no pattern
/// hides another by accident.
#[test]
fn every_pattern_leads_to_its_own_service() {
    for service in Catalog::builtin().services() {
        for host in service.hosts() {
            for word in ["zz9", "us-east-1"] {
                let name = host.replace("**", "a.zz9").replace('*', word);
                assert_eq!(service_of(&name), Some(service.id.as_str()), "{name} by {host}");
                assert_eq!(service_of(&name.to_ascii_uppercase()), Some(service.id.as_str()));
                assert_eq!(service_of(&format!("{name}.")), Some(service.id.as_str()));
            }
        }
    }
}

/// Where patterns of two services cover the same name, one of them must be the more literal
/// at the first label, from the right, in which they differ.
#[test]
fn no_two_services_claim_a_name_with_equal_right() {
    let patterns: Vec<(&str, &str)> = Catalog::builtin()
        .services()
        .iter()
        .flat_map(|service| service.hosts().iter().map(|host| (service.id.as_str(), host.as_str())))
        .collect();
    for (index, (service, host)) in patterns.iter().enumerate() {
        for (other_service, other) in &patterns[index + 1..] {
            if service == other_service {
                continue;
            }
            let differing = host.rsplit('.').zip(other.rsplit('.')).find(|(a, b)| a != b);
            let Some((a, b)) = differing else { continue };
            let both_wild = a.contains('*') && b.contains('*');
            assert!(!both_wild || disjoint(a, b), "{host} and {other}");
        }
    }
}

fn disjoint(a: &str, b: &str) -> bool {
    let parts = |label: &str| match label.split_once('*') {
        Some((prefix, suffix)) => (prefix.to_owned(), suffix.to_owned()),
        None => (label.to_owned(), String::new()),
    };
    let ((a_prefix, a_suffix), (b_prefix, b_suffix)) = (parts(a), parts(b));
    let clash = |x: &str, y: &str| x.starts_with(y) || y.starts_with(x);
    let clash_end = |x: &str, y: &str| x.ends_with(y) || y.ends_with(x);
    // Of two that overlap, a longer prefix and suffix is the more literal and wins.
    !(clash(&a_prefix, &b_prefix) && clash_end(&a_suffix, &b_suffix)) || a.len() != b.len()
}

#[test]
fn look_alikes_are_nobodys() {
    for host in [
        "api.openai.com.evil.example",
        "notopenai.com",
        "xapi.openai.com",
        "api-openai.com",
        "openai.com.",
        "api.openai.co",
        "api.openai.comm",
        ".api.openai.com",
        "api..openai.com",
        "api.openai.com..",
        "evilapi.anthropic.com",
        "claude.ai.evil.example",
        "notclaude.ai",
        "openai.azure.com",
        "x.y.openai.azure.com",
        "aiplatform.googleapis.com.evil.example",
        "-aiplatform.googleapis.com",
        "bedrock-runtime.amazonaws.com",
        "bedrock-runtime.us-east-1.amazonaws.com.evil.example",
        "s3.us-east-1.amazonaws.com",
        "www.google.com",
        "storage.googleapis.com",
        "github.com",
        "localhost",
        "com",
        "",
    ] {
        assert_eq!(service_of(host), None, "{host}");
    }
}

#[test]
fn the_hosts_that_everyone_uses_are_known() {
    for (host, service) in [
        ("api.openai.com", "openai-api"),
        ("api.openai.com.", "openai-api"),
        ("API.OpenAI.com", "openai-api"),
        ("eu.api.openai.com", "openai-api"),
        ("chatgpt.com", "chatgpt"),
        ("sora.chatgpt.com", "openai-sora"),
        ("acme-prod.openai.azure.com", "azure-openai"),
        ("acme.services.ai.azure.com", "azure-foundry"),
        ("api.anthropic.com", "anthropic-api"),
        ("claude.ai", "claude"),
        ("generativelanguage.googleapis.com", "gemini-api"),
        ("europe-west4-aiplatform.googleapis.com", "vertex-ai"),
        ("bedrock-runtime.eu-central-1.amazonaws.com", "bedrock"),
        ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "bedrock"),
        ("vpce-0a1b-2c3d.bedrock-runtime.us-east-1.vpce.amazonaws.com", "bedrock"),
        ("proxy.individual.githubcopilot.com", "github-copilot"),
        ("api2.cursor.sh", "cursor"),
        ("us-asia.gcpp.cursor.sh", "cursor"),
    ] {
        assert_eq!(service_of(host), Some(service), "{host}");
    }
}

#[test]
fn the_outer_name_of_ech_is_no_providers() {
    assert!(is_ech_public_name("cloudflare-ech.com") && is_ech_public_name("CLOUDFLARE-ECH.com."));
    assert!(!is_ech_public_name("chatgpt.com"));
    assert_eq!(service_of("cloudflare-ech.com"), None);
}

#[test]
fn a_provider_with_prices_can_be_priced_from_its_first_typical_model_on() {
    let catalog = Catalog::builtin();
    let million = Tokens { low: 1_000_000, point: 1_000_000, high: 1_000_000 };
    let day_s = 86_400;
    let mut priced = 0;
    for service in catalog.services().iter().filter(|s| matches!(s.kind, Kind::Api | Kind::Cloud)) {
        let provider = catalog.provider(service);
        if provider.models().next().is_none() {
            continue;
        }
        priced += 1;
        let is_typical = |day: &u64| provider.models_at(day * day_s).any(|model| model.typical);
        let first = (0..NOVEMBER_2026 / day_s).find(is_typical).unwrap();
        for day in first..NOVEMBER_2026 / day_s + 365 {
            let cost = catalog.cost(&service.id, &[], day * day_s, million, million).unwrap();
            assert!(0 < cost.low_micros && cost.low_micros <= cost.point_micros, "{}", service.id);
            assert!(cost.point_micros <= cost.high_micros, "{}", service.id);
            assert!(cost.high_micros <= 90_000_000, "{}: rare models are not in the range", service.id);
        }
    }
    assert!(priced >= 14, "{priced}");
}

#[test]
fn every_file_of_prices_is_compiled_in() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/data/prices");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let id = path.file_stem().unwrap().to_str().unwrap();
        let provider = Catalog::builtin().providers().iter().find(|provider| provider.id == id);
        assert!(provider.is_some_and(|provider| provider.models().next().is_some()), "{id}");
    }
}

#[test]
fn a_declared_mix_narrows_the_range_to_its_models() {
    // gpt-5: $1.25 ($0.125 from the cache) and $10; gpt-5-mini: $0.25 ($0.025) and $2.
    let million = Tokens { low: 1_000_000, point: 1_000_000, high: 1_000_000 };
    let mix = [Share { model: "gpt-5", permille: 700 }, Share { model: "gpt-5-mini", permille: 300 }];
    let cost = Catalog::builtin().cost("openai-api", &mix, NOVEMBER_2026, million, million).unwrap();
    assert_eq!((cost.low_micros, cost.point_micros, cost.high_micros), (2_025_000, 8_550_000, 11_250_000));
    let elsewhere = Catalog::builtin().cost("anthropic-api", &mix, NOVEMBER_2026, million, million);
    assert_eq!(elsewhere, Catalog::builtin().cost("anthropic-api", &[], NOVEMBER_2026, million, million));
    assert_eq!(Catalog::builtin().cost("chatgpt", &mix, NOVEMBER_2026, million, million), None);
}

#[test]
fn a_cost_by_hand_agrees() {
    // gpt-6.1-sol: $2 and $10 a million; the dearest is gpt-6-astra at $10 and $50, the cheapest
    // gpt-5-nano from its cache at $0.005 and $0.40.
    let million = Tokens { low: 1_000_000, point: 1_000_000, high: 1_000_000 };
    let cost = Catalog::builtin().cost("openai-api", &[], NOVEMBER_2026, million, million).unwrap();
    assert_eq!(cost.point_micros, 12_000_000);
    assert_eq!(cost.high_micros, 60_000_000);
    assert_eq!(cost.low_micros, 405_000);
}

#[test]
fn chat_sites_and_unknown_services_are_unpriced() {
    let some = Tokens { low: 1, point: 2, high: 3 };
    for service in
        Catalog::builtin().services().iter().filter(|s| matches!(s.kind, Kind::Chat | Kind::Assistant))
    {
        assert_eq!(Catalog::builtin().cost(&service.id, &[], NOVEMBER_2026, some, some), None);
    }
    assert_eq!(Catalog::builtin().cost("no-such-service", &[], NOVEMBER_2026, some, some), None);
    assert_eq!(Catalog::builtin().cost("elevenlabs-api", &[], NOVEMBER_2026, some, some), None);
}

#[test]
fn the_fitted_constants_are_there() {
    let constant = |service: &str| {
        let catalog = Catalog::builtin();
        let calibration = catalog.calibration(catalog.service(service).unwrap()).unwrap();
        (calibration.bytes_per_token, calibration.residual_permille)
    };
    assert_eq!(constant("openai-api"), (328, 7));
    assert_eq!(constant("azure-openai"), (441, 29));
    assert_eq!(constant("xai-api"), (447, 20));
    let by_id = |id: &str| {
        let found =
            Catalog::builtin().calibrations().iter().find(|calibration| calibration.id == id).unwrap();
        (found.bytes_per_token, found.residual_permille)
    };
    assert_eq!(by_id("openrouter-deepseek-2025-03"), (334, 36));
    assert_eq!(by_id("openrouter-claude-2025-03"), (158, 210));
}

#[test]
fn files_that_contradict_themselves_are_refused() {
    let service = |id: &str, host: &str| {
        format!(
            "[[provider.service]]\nid = \"{id}\"\nname = \"N\"\nkind = \"api\"\nhosts = [\"{host}\"]\nsource = \"https://a.example\"\n"
        )
    };
    let head = "[[provider]]\nid = \"p\"\nname = \"P\"\n";
    let read = |text: &str| Catalog::from_files([("test", text)]);
    assert!(read(&format!("{head}{}", service("a", "api.a.example"))).is_ok());
    let twice = format!("{head}{}{}", service("a", "api.a.example"), service("b", "api.a.example"));
    assert!(matches!(read(&twice), Err(CatalogError::Twice(_))));
    let same_id = format!("{head}{}{}", service("a", "api.a.example"), service("a", "api.b.example"));
    assert!(matches!(read(&same_id), Err(CatalogError::Twice(_))));
    assert!(matches!(read(&format!("{head}{}", service("a", "*.com"))), Err(CatalogError::Pattern { .. })));
    let lost = format!("{head}{}calibration = \"none\"\n", service("a", "api.a.example"));
    assert!(matches!(read(&lost), Err(CatalogError::NoCalibration { .. })));
    assert!(matches!(read("x"), Err(CatalogError::Toml { .. })));
    assert!(matches!(read(&format!("{head}{head}")), Err(CatalogError::Twice(_))));
}

#[test]
fn prices_in_another_unit_or_twice_at_one_time_are_refused_at_load() {
    let head = "[[provider]]\nid = \"p\"\nname = \"P\"\n";
    let price = |input: u64, from: &str| {
        format!(
            "[[prices]]\nof = \"p\"\n[[prices.model]]\nname = \"m\"\ninput_micros_per_mtok = {input}\n\
             output_micros_per_mtok = 10_000_000\nvalid_from = \"{from}\"\nchecked_on = \"2026-01-01\"\n\
             source = \"https://a.example\"\n"
        )
    };
    let read = |prices: &[String]| {
        let text = format!("{head}{}", prices.concat());
        Catalog::from_files([("test", text.as_str())]).map(|_| ())
    };
    assert!(read(&[price(2_500_000, "2026-01-01")]).is_ok());
    for wrong in [0, 2, 2_500_000_000_000] {
        let error = read(&[price(wrong, "2026-01-01")]);
        assert!(matches!(error, Err(CatalogError::Price { .. })), "{wrong}");
    }
    let twice = [price(2_500_000, "2026-01-01"), price(2_000_000, "2026-02-01")];
    assert!(matches!(read(&twice), Err(CatalogError::Price { .. })));
    let stray = price(2_500_000, "2026-01-01").replace("\"p\"", "\"q\"");
    assert!(matches!(read(&[stray]), Err(CatalogError::NoProvider(_))));
}

proptest! {
    #[test]
    fn whatever_is_put_around_a_known_name_makes_it_another(prefix in "[a-z0-9-]{1,8}", suffix in "[a-z0-9-]{1,8}") {
        for host in ["api.openai.com", "api.anthropic.com", "claude.ai"] {
            prop_assert_eq!(service_of(&format!("{host}.{suffix}")), None);
            prop_assert_eq!(service_of(&format!("{prefix}{host}")), None);
            prop_assert_eq!(service_of(&format!("{host}{suffix}")), None);
        }
    }

    #[test]
    fn no_name_makes_a_look_up_panic(name in any::<String>(), tail in "[a-z.*-]{0,40}") {
        let _ = service_of(&name);
        let _ = service_of(&format!("{name}.{tail}.amazonaws.com"));
        let _ = Pattern::parse(&tail);
    }
}
