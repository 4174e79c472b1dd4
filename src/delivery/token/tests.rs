use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use super::*;

const SUBJECT: &str = "system:serviceaccount:eventing:merges-oidc";

struct Signer {
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl Signer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref(), &random).expect("a key");
        Self { key, random }
    }

    fn jwks(&self, id: Option<&str>) -> Vec<u8> {
        let point = self.key.public_key().as_ref();
        let (x, y) = (&point[1..33], &point[33..]);
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let mut key =
            json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "x": encode(x), "y": encode(y)});
        if let Some(id) = id {
            key["kid"] = id.into();
        }
        json!({"keys": [key, {"kty": "OKP", "crv": "Ed448", "x": "AA", "kid": "other"}]}).to_string().into_bytes()
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = self.key.sign(&self.random, message.as_bytes()).expect("a signature");
        format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

fn header() -> Value {
    json!({"alg": "ES256", "kid": "k1"})
}

fn claims() -> Value {
    let now = jsonwebtoken::get_current_timestamp();
    json!({"iss": "https://issuer", "aud": ["ours", "another"], "sub": SUBJECT, "exp": now + 600, "nbf": now, "iat": now})
}

fn policy() -> TokenPolicy {
    TokenPolicy::new("ours", &["system:serviceaccount:eventing:merges-oidc*".to_owned()]).expect("a policy")
}

fn check(keys: &KeySet, authorization: &str) -> Result<TokenProof, TokenError> {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_str(authorization).expect("a value"));
    BearerToken::from_headers(&headers)?.verify(&policy(), keys)
}

fn keys(signer: &Signer) -> KeySet {
    KeySet::parse("https://issuer".to_owned(), &signer.jwks(Some("k1"))).expect("keys")
}

#[test]
fn accepts_token_of_issuer_for_audience() {
    let signer = Signer::new();
    let token = signer.token(&header(), &claims());
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let proof = check(&keys(&signer), &format!("{scheme} {token}")).expect("a proof");
        assert_eq!(proof.subject(), SUBJECT);
    }
    // A token without a key id is verified with all keys.
    let nameless = signer.token(&json!({"alg": "ES256"}), &claims());
    assert!(check(&keys(&signer), &format!("Bearer {nameless}")).is_ok());
    let unnamed = KeySet::parse("https://issuer".to_owned(), &signer.jwks(None)).expect("keys");
    assert!(check(&unnamed, &format!("Bearer {nameless}")).is_ok());
}

#[test]
fn rejects_wrong_claims() {
    let signer = Signer::new();
    let now = jsonwebtoken::get_current_timestamp();
    for (name, value) in [
        ("iss", json!("https://other")),
        ("iss", Value::Null),
        ("aud", json!(["theirs"])),
        ("aud", json!("theirs")),
        ("aud", json!([])),
        ("aud", Value::Null),
        ("exp", json!(now - 60)),
        ("exp", Value::Null),
        ("exp", json!("never")),
        ("nbf", json!(now + 60)),
        ("nbf", json!("soon")),
        ("sub", Value::Null),
        ("sub", json!(7)),
    ] {
        let mut changed = claims();
        changed[name] = value.clone();
        if value.is_null() {
            changed.as_object_mut().expect("claims").remove(name);
        }
        let verdict = check(&keys(&signer), &format!("Bearer {}", signer.token(&header(), &changed)));
        assert!(matches!(verdict, Err(TokenError::Invalid(_))), "{name} {value}: {verdict:?}");
    }
}

#[test]
fn accepts_no_other_subjects() {
    let signer = Signer::new();
    for subject in ["system:serviceaccount:eventing:other", "system:serviceaccount:other:merges-oidc", "", "*"] {
        let mut changed = claims();
        changed["sub"] = subject.into();
        let proof = check(&keys(&signer), &format!("Bearer {}", signer.token(&header(), &changed))).expect("a proof");
        assert_eq!(proof.subject(), subject);
        assert!(!policy().subjects().contain(subject));
    }
}

#[test]
fn rejects_signatures_of_other_keys_and_algorithms() {
    let (signer, other) = (Signer::new(), Signer::new());
    let ours = keys(&signer);
    let verdict = |token: &str| check(&ours, &format!("Bearer {token}"));
    assert!(matches!(verdict(&other.token(&header(), &claims())), Err(TokenError::Invalid(_))));
    let unknown = other.token(&json!({"alg": "ES256", "kid": "k2"}), &claims());
    assert_eq!(verdict(&unknown), Err(TokenError::UnknownKey));

    let good = signer.token(&header(), &claims());
    let (message, _) = good.rsplit_once('.').expect("a signature");
    assert!(matches!(verdict(&format!("{message}.")), Err(TokenError::Invalid(_))));
    for algorithm in ["none", "None", "HS256", "ES512", "EdDSA", "RS256", "ES384"] {
        let token = signer.token(&json!({"alg": algorithm, "kid": "k1"}), &claims());
        let stripped = format!("{}.", token.rsplit_once('.').expect("a signature").0);
        assert!(verdict(&token).is_err() && verdict(&stripped).is_err(), "{algorithm}");
    }
}

#[test]
fn rejects_missing_and_malformed_tokens() {
    let signer = Signer::new();
    let good = signer.token(&header(), &claims());
    for value in ["", "Bearer", "Basic dXNlcjpwYXNz", &good] {
        assert_eq!(check(&keys(&signer), value), Err(TokenError::Missing), "{value}");
    }
    for value in ["Bearer x", "Bearer a.b.c", "Bearer ..", &format!("Bearer {}", "x".repeat(20_000))] {
        assert!(matches!(check(&keys(&signer), value), Err(TokenError::Malformed(_))), "{value}");
    }
    let mut twice = HeaderMap::new();
    for _ in 0..2 {
        twice.append(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {good}")).expect("a value"));
    }
    assert!(matches!(BearerToken::from_headers(&twice).map(drop), Err(TokenError::Malformed(_))));
    assert!(matches!(BearerToken::from_headers(&HeaderMap::new()).map(drop), Err(TokenError::Missing)));
}

/// Generated with OpenSSL, because ring cannot generate RSA keys; the tokens expire in 2100.
const RSA_MODULUS: &str = "qPApoAxc-6k7PLdTPLGzfhv2H7-KyrIksucikJkjiqBSECmEP6MzZQAyq2T2yB-Mb1TF1cHyRjKsqbMehvvYYUpHpNKA_M4q\
     a39fWRyhU-YuuMD_jyg1QmtQFIpf5DvUveucfUfz71QdIwLIzb0vhyWOQI9mvSMj_FFBAb7OfzSU7gMVGD1M5V8GQrQEPJPX\
     jjmHseCtEDykOBsfuGUk7xvYXr2FTnD0nBpvcwYCzopYWpV067-Jrv2ratro6kU6U5d4q2aEeonQvVqpXx4BTS_1LCQy5YU3\
     U2nvokzN0sv5_TI37Y2HdFsSLLYymDg624tMZ_iJkTbBqCqo6diYcQ";
const RSA_CLAIMS: &str = "eyJpc3MiOiJodHRwczovL2lzc3VlciIsImF1ZCI6WyJvdXJzIl0sInN1YiI6InN5c3RlbTpzZXJ2aWNlYWNjb3VudDpldmVu\
     dGluZzptZXJnZXMtb2lkYyIsImV4cCI6NDEwMjQ0NDgwMH0";
const RSA_SIGNATURES: [(&str, &str); 2] = [
    (
        "RS256",
        "dHq11GxxfmLA8mGs8-1xNjKWYfa8NcnjtIFQdE4QWhUUET_oFftGP14bnZeOmFCsQjJfk3n5X5eIIkZQYFig6XzaqtHPe2qy\
     39yao69yoOKke5IOgQ-4kqP1Kxll-C3WifmwzQU24ehXX98BNUjies6bFk5TQf88coRWTo9M56oaGxKLoVXFSzH5rIdU6vwG\
     3TXCoxcRMIzpmztXw7ONjSpJmEldCDuP3V_YMlk61t_eTk6J9oq2TOjeQDl5Rm7uV1avlIfjHDQxL-OLL0rNyAwfCO8kA0Vt\
     Zjf7wJvOKTRGiSZxeHS_0QxhvuXJNkZpRmJbEgWk_kToLeT5W-CyjQ",
    ),
    (
        "PS256",
        "CKTgTY7MOPMWslLFUTN3HI_KGJomhHbjHF65WWKdy8aTG8HqKu86kTFjG8vBOlkbGqz-B6DFEp6RLW_aX_ADqCkVSWvTO3x_\
     IhRD-Oi5vo9o_K4Vl_FhWFd9NJ-m3EELzNmm_PIv8YVu4L6Ah-zRQkituLr6Udm4V6114Qpzj1R0khZ-IyiHy5Avdkx3CFFy\
     ZUm8l7lypF8-wo_yGoVvnZB9_H9hop97TJR9VYWW_0Z29AQR4wmq7jORUrCHIj37aToNuxXQ-JHqpqtY1qscuCnBxtVBNW-K\
     fGg8AhhERPrxWm9y2ee55yr7YcRgRM9eVoqglHPOanlHzY9v3JdSuA",
    ),
];

#[test]
fn verifies_rsa_signatures() {
    let jwks = json!({"keys": [{"kty": "RSA", "kid": "r1", "n": RSA_MODULUS, "e": "AQAB"}]}).to_string();
    let keys = KeySet::parse("https://issuer".to_owned(), jwks.as_bytes()).expect("keys");
    for (algorithm, signature) in RSA_SIGNATURES {
        let header = BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{algorithm}","kid":"r1"}}"#));
        let token = format!("Bearer {header}.{RSA_CLAIMS}.{signature}");
        assert_eq!(check(&keys, &token).expect("a proof").subject(), SUBJECT, "{algorithm}");
        let swapped =
            if algorithm == "RS256" { token.replace("eyJhbGciOiJSUzI1NiI", "eyJhbGciOiJQUzI1NiI") } else { continue };
        assert!(check(&keys, &swapped).is_err(), "algorithm differs from the signature's");
    }
}

#[test]
fn reads_a_teams_subjects() {
    let subjects = Subjects::parse(b"# ours\n\nsystem:serviceaccount:a:merges\n  system:serviceaccount:b:*  \n")
        .expect("subjects");
    assert!(subjects.contain("system:serviceaccount:a:merges") && subjects.contain("system:serviceaccount:b:x"));
    assert!(!subjects.contain("system:serviceaccount:c:merges") && !subjects.contain("# ours"));
    for (content, why) in
        [(&b""[..], "names no subject"), (b"# none\n", "names no subject"), (b"a[", "a["), (b"\xff", "UTF-8")]
    {
        let error = Subjects::parse(content).map(drop).expect_err("an error").to_string();
        assert!(error.contains(why), "{error}");
    }
}
