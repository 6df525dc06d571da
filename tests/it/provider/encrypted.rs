//! Services behind TLS: whom the provider believes.

use std::sync::Arc;

use listmill_shared::domain::clock::Clock;
use listmill_shared::domain::id::Ids;
use listmill_shared::domain::verdict::Reason;
use listmill_worker::provider::http::{Finding, Http};
use tokio_rustls::TlsAcceptor;

use super::server::{Upstream, say};
use super::world::{START, VALID, config};

/// A service with a certificate of its own, and that certificate as PEM.
async fn service() -> (Upstream, String) {
    let signed = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der());
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key.unwrap())
        .unwrap();
    let service = Upstream::encrypted(|_| say(200, VALID), TlsAcceptor::from(Arc::new(tls))).await;
    (service, signed.cert.pem())
}

async fn check(service: &Upstream, trusted: Option<&str>) -> Finding {
    let mut config = config(&service.base());
    config.retries = 0;
    config.ca_file = trusted.map(|pem| {
        let path = listmill_tests::scratch::folder("ca").join("ca.pem");
        std::fs::write(&path, pem).unwrap();
        path
    });
    let provider = Http::new(&config, Clock::manual(START), Ids::seeded(7)).unwrap();
    provider.check("a@x.test").await
}

#[tokio::test]
async fn a_certificate_of_a_trusted_authority_is_believed() {
    let (service, pem) = service().await;
    assert_eq!(check(&service, Some(&pem)).await.verdict.reason, Reason::Accepted);
    assert_eq!(service.asked(), 1);
}

#[tokio::test]
async fn any_other_certificate_is_not_and_nothing_is_sent() {
    let (ours, _) = service().await;
    let (_, foreign) = service().await;
    for trusted in [None, Some(foreign.as_str())] {
        let found = check(&ours, trusted).await;
        assert_eq!((found.verdict.reason, found.verdict.temporary), (Reason::NoConnect, true));
        let problem = found.evidence.problem.unwrap_or_default();
        assert!(problem.contains("certificate"), "{problem}");
    }
    assert_eq!(ours.asked(), 0);
}
