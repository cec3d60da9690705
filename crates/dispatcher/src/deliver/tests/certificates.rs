//! TLS receivers, good and bad, with an authority of their own.

use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::dns::NameServer;
use super::*;

const HOST: &str = "hooks.example.com";

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    fn certify(&self, edit: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::new(vec![HOST.to_owned()]).unwrap();
        edit(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), key)
    }
}

type Identity = (CertificateDer<'static>, KeyPair);

fn acceptor((certificate, key): Identity, protocols: &[&[u8]]) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

async fn tls_receiver(identity: Identity, answer: &'static [u8]) -> Receiver {
    let acceptor = acceptor(identity, &[b"http/1.1"]);
    Receiver::start(move |_, peer| {
        let acceptor = acceptor.clone();
        async move {
            let mut peer = peer.layered(|tcp| acceptor.accept(tcp)).await?;
            read_request(&mut peer).await?;
            peer.answer(answer).await?;
            read_request(&mut peer).await?;
            peer.answer(answer).await
        }
    })
    .await
}

/// A sender that trusts the authority and finds the host on loopback.
async fn trusting(authority: &Authority) -> (Sender, NameServer) {
    let names = NameServer::start(&[(HOST, &[[127, 0, 0, 1]])]).await;
    static FILES: AtomicU32 = AtomicU32::new(0);
    let number = FILES.fetch_add(1, Ordering::Relaxed);
    let file = format!("vellocity-test-ca-{}-{number}.pem", std::process::id());
    let path = std::env::temp_dir().join(file);
    std::fs::write(&path, &authority.pem).unwrap();
    let config = Config {
        extra_ca_file: Some(path.clone()),
        ..Config::default()
    };
    let sender = Sender::new(&config, policy(|_| {}), resolver(names.address)).unwrap();
    std::fs::remove_file(path).unwrap();
    (sender, names)
}

fn url(receiver: &Receiver) -> String {
    format!("https://{HOST}:{}/", receiver.address.port())
}

#[tokio::test]
async fn a_trusted_receiver_is_reached_and_the_time_of_the_handshake_told() {
    let authority = Authority::new("Ours");
    let mut receiver = tls_receiver(authority.certify(|_| {}), OK).await;
    let (sender, _names) = trusting(&authority).await;
    let first = send(&sender, &url(&receiver)).await;
    assert_eq!(first.outcome, Outcome::Delivered);
    let timings = first.timings;
    assert!(timings.dns.is_some() && timings.connect.is_some() && timings.tls.is_some());
    assert!(!timings.reused_connection);
    receiver.next_request().await;
    let second = send(&sender, &url(&receiver)).await;
    assert_eq!(second.outcome, Outcome::Delivered);
    assert!(second.timings.reused_connection);
}

#[tokio::test]
async fn a_bad_certificate_is_told_in_plain_words() {
    let authority = Authority::new("Ours");
    let expired = authority.certify(|params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let early = authority.certify(|params| params.not_before = date_time_ymd(4000, 1, 1));
    let other = authority.certify(|params| {
        *params = CertificateParams::new(vec!["other.example.com".to_owned()]).unwrap();
    });
    let stranger = Authority::new("A stranger").certify(|_| {});
    let self_signed = {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![HOST.to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().der().clone(), key)
    };
    let (sender, _names) = trusting(&authority).await;
    for (identity, words) in [
        (expired, "the TLS certificate has expired"),
        (early, "the TLS certificate is not valid yet"),
        (
            other,
            "the TLS certificate is for another host name, not for hooks.example.com",
        ),
        (stranger, "the TLS certificate's issuer is not trusted"),
        (self_signed, "the TLS certificate's issuer is not trusted"),
    ] {
        let receiver = tls_receiver(identity, OK).await;
        let attempt = send(&sender, &url(&receiver)).await;
        let (kind, message) = failure(&attempt);
        assert_eq!(kind, FailureKind::Tls, "{message}");
        assert!(message.starts_with(words), "{message}");
        assert!(attempt.timings.tls.is_some());
    }
}

#[tokio::test]
async fn a_receiver_that_speaks_no_tls_is_told() {
    let authority = Authority::new("Ours");
    let (sender, _names) = trusting(&authority).await;
    for (answer, words) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            "the receiver does not speak TLS on this port",
        ),
        (b"", "closed the connection during the TLS handshake"),
    ] {
        let receiver = Receiver::start(move |_, peer| async move {
            let mut stream = peer.into_stream();
            tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 4096])
                .await
                .ok()?;
            tokio::io::AsyncWriteExt::write_all(&mut stream, answer)
                .await
                .ok()
        })
        .await;
        let attempt = send(&sender, &url(&receiver)).await;
        let (kind, message) = failure(&attempt);
        assert_eq!(kind, FailureKind::Tls);
        assert!(message.ends_with(words), "{message}");
    }
}

#[tokio::test]
async fn a_handshake_that_never_ends_runs_into_the_connect_time_out() {
    let receiver = Receiver::start(|_, peer| async move {
        let mut stream = peer.into_stream();
        tokio::io::copy(&mut stream, &mut tokio::io::sink())
            .await
            .ok()?;
        None
    })
    .await;
    let attempt = send(
        &impatient_sender(),
        &format!("https://{}/", receiver.address),
    )
    .await;
    let (kind, message) = failure(&attempt);
    assert_eq!(kind, FailureKind::Tls);
    assert!(
        message.ends_with("no connection within 200 ms"),
        "{message}"
    );
}

#[tokio::test]
async fn a_body_that_ends_without_a_goodbye_is_complete_unless_it_told_its_length() {
    let authority = Authority::new("Ours");
    let acceptor = acceptor(authority.certify(|_| {}), &[b"http/1.1"]);
    for (answer, delivered) in [
        (&b"HTTP/1.1 200 OK\r\n\r\nfine"[..], true),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfine", false),
    ] {
        let acceptor = acceptor.clone();
        let receiver = Receiver::start(move |_, peer| {
            let acceptor = acceptor.clone();
            async move {
                let mut peer = peer.layered(|tcp| acceptor.accept(tcp)).await?;
                read_request(&mut peer).await?;
                peer.answer(answer).await
            }
        })
        .await;
        let (sender, _names) = trusting(&authority).await;
        let attempt = send(&sender, &url(&receiver)).await;
        assert_eq!(attempt.is_delivered(), delivered);
        assert_eq!(attempt.response.unwrap().body, "fine");
    }
}

#[tokio::test]
async fn http2_is_spoken_where_the_receiver_does() {
    let authority = Authority::new("Ours");
    let acceptor = acceptor(authority.certify(|_| {}), &[b"h2", b"http/1.1"]);
    let receiver = Receiver::start(move |_, peer| {
        let acceptor = acceptor.clone();
        async move {
            let tls = acceptor.accept(peer.into_stream()).await.ok()?;
            let mut connection = h2::server::handshake(tls).await.ok()?;
            while let Some(request) = connection.accept().await {
                let (request, mut respond) = request.ok()?;
                assert_eq!(request.headers()["x-vellocity-event"], EVENT);
                if request.uri().path() == "/reset" {
                    respond.send_reset(h2::Reason::INTERNAL_ERROR);
                    continue;
                }
                let mut body = respond.send_response(http::Response::new(()), false).ok()?;
                body.send_data(Bytes::from_static(b"ok"), true).ok()?;
            }
            None
        }
    })
    .await;
    let (sender, _names) = trusting(&authority).await;
    let first = send(&sender, &url(&receiver)).await;
    assert_eq!(first.outcome, Outcome::Delivered);
    assert!(first.timings.tls.is_some());
    assert_eq!(first.response.unwrap().body, "ok");
    let second = send(&sender, &url(&receiver)).await;
    assert_eq!(second.outcome, Outcome::Delivered);
    assert!(second.timings.reused_connection);
    let broken = send(&sender, &format!("{}reset", url(&receiver))).await;
    assert_eq!(
        failure(&broken),
        (
            FailureKind::ConnectionClosed,
            "the receiver broke off the HTTP/2 stream"
        )
    );
}
