//! The tokens that open the admin API and let nodes join, and the issuing of API keys.

use aws_lc_rs::{constant_time, digest, hmac, rand};
use model::cluster::{AdminToken, Cluster, GossipKey, JoinToken, Role, Secret};

const ADMIN: &str = "gwa1";
const JOIN: &str = "gwj1";
/// The longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 512;
/// Random bytes of a secret: 160 bits.
const SECRET_BYTES: usize = 20;

/// Why a text is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadToken {
    /// It begins like no token of this sort.
    #[error("this is no {sort} token: one begins with {prefix}.")]
    Prefix {
        /// Which sort was wanted.
        sort: &'static str,
        /// What one begins with.
        prefix: &'static str,
    },
    /// Its checksum is not that of its text.
    #[error("the token is mistyped or cut off: its checksum does not fit")]
    Checksum,
}

/// An admin token as its holder has it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Admin {
    /// By what it is looked up and deleted.
    pub(crate) id: String,
    secret: String,
}

/// A join token as its holder has it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Join {
    /// SHA-256 of the CA's certificate (DER).
    pub(crate) ca_sha256: [u8; 32],
    /// By what it is looked up and deleted.
    pub(crate) id: String,
    /// What is shown to the leader, once its CA is known.
    pub(crate) secret: String,
}

impl Admin {
    /// A new one.
    pub(crate) fn generate() -> Self {
        Self { id: hex(&random::<5>()), secret: hex(&random::<SECRET_BYTES>()) }
    }

    /// Reads one.
    pub(crate) fn parse(text: &str) -> Result<Self, BadToken> {
        match split(text, "admin", ADMIN)?[..] {
            [id, secret] => Ok(Self { id: id.to_owned(), secret: secret.to_owned() }),
            _ => Err(BadToken::Checksum),
        }
    }

    /// The text to be shown, once.
    pub(crate) fn text(&self) -> String {
        seal(format!("{ADMIN}.{}.{}", self.id, self.secret))
    }

    /// What is stored of it.
    pub(crate) fn stored(&self, role: Role, label: String, expires_at_ms: Option<u64>) -> AdminToken {
        AdminToken { digest: sha256_hex(self.secret.as_bytes()), role, label, expires_at_ms }
    }
}

impl Join {
    /// A new one for the cluster of this CA.
    pub(crate) fn generate(ca_sha256: [u8; 32]) -> Self {
        Self { ca_sha256, id: hex(&random::<5>()), secret: hex(&random::<SECRET_BYTES>()) }
    }

    /// Reads one.
    pub(crate) fn parse(text: &str) -> Result<Self, BadToken> {
        match split(text, "join", JOIN)?[..] {
            [ca, id, secret] => Ok(Self {
                ca_sha256: unhex(ca).and_then(|ca| ca.try_into().ok()).ok_or(BadToken::Checksum)?,
                id: id.to_owned(),
                secret: secret.to_owned(),
            }),
            _ => Err(BadToken::Checksum),
        }
    }

    /// The text to be shown, once.
    pub(crate) fn text(&self) -> String {
        seal(format!("{JOIN}.{}.{}.{}", hex(&self.ca_sha256), self.id, self.secret))
    }

    /// SHA-256 of its secret, 64 hexadecimal digits: what is stored and compared.
    pub(crate) fn digest(&self) -> String {
        sha256_hex(self.secret.as_bytes())
    }

    /// What is stored of it.
    pub(crate) fn stored(&self, expires_at_ms: u64, uses: u32) -> JoinToken {
        JoinToken { digest: self.digest(), expires_at_ms, uses_left: uses }
    }
}

/// Whose admin token this text is and what it opens at `now_ms` (milliseconds since the Unix epoch); none when it opens
/// nothing. Takes as long for a wrong secret as for the right one.
pub(crate) fn verify_admin(cluster: &Cluster, text: &str, now_ms: u64) -> Option<(String, Role)> {
    let token = Admin::parse(text).ok()?;
    let known = cluster.admin_tokens.get(&token.id)?;
    let shown = sha256_hex(token.secret.as_bytes());
    let good = same(&shown, &known.digest) && known.expires_at_ms.is_none_or(|end| now_ms < end);
    good.then(|| (known.label.clone(), known.role))
}

/// A new API key under this pepper: the credential, to be shown once; its digest; and its hint.
pub(crate) fn issue_key(pepper: &[u8; 32]) -> (String, String, String) {
    // Once in 10^16 times the bytes are too few.
    let credential = loop {
        if let Some(credential) = model::key::generate(&random::<{ model::key::RANDOM_BYTES }>()) {
            break credential;
        }
    };
    let digest = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, pepper), credential.as_bytes());
    let hint = credential[credential.len() - 4..].to_owned();
    (credential, hex(digest.as_ref()), hint)
}

/// A new gossip key under this id.
pub(crate) fn gossip_key(id: u8) -> GossipKey {
    GossipKey { id, secret: Secret(hex(&random::<32>())) }
}

/// Random bytes from the operating system's generator.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("AWS-LC ends the process rather than fail to be random");
    bytes
}

/// Whether two texts are equal, in a time that tells nothing about where they differ.
pub(crate) fn same(one: &str, other: &str) -> bool {
    constant_time::verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// The bytes of hexadecimal digits; none if they are not.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    rest.is_empty().then_some(())?;
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// SHA-256 as 64 lower-case hexadecimal digits.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn seal(text: String) -> String {
    let sum = crc32fast::hash(text.as_bytes());
    format!("{text}.{sum:08x}")
}

/// The parts between the prefix and the checksum, once both are seen to be right.
fn split<'t>(text: &'t str, sort: &'static str, prefix: &'static str) -> Result<Vec<&'t str>, BadToken> {
    let text = text.trim();
    let rest = text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.'));
    let rest = rest.ok_or(BadToken::Prefix { sort, prefix })?;
    let (parts, sum) = rest.rsplit_once('.').ok_or(BadToken::Checksum)?;
    let sealed = &text[..text.len() - sum.len() - 1];
    if text.len() > TOKEN_BYTES_MAX || sum != format!("{:08x}", crc32fast::hash(sealed.as_bytes())) {
        return Err(BadToken::Checksum);
    }
    Ok(parts.split('.').collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_back_and_mistyped_ones_are_told_so() {
        let join = Join::generate([7; 32]);
        assert!(Join::parse(&format!(" {}\n", join.text())) == Ok(join.clone()));
        assert_eq!(
            Admin::parse(&join.text()).err(),
            Some(BadToken::Prefix { sort: "admin", prefix: "gwa1" })
        );
        let text = join.text();
        for at in 5..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let wrong = String::from_utf8(bytes).unwrap();
            assert_eq!(Join::parse(&wrong).err(), Some(BadToken::Checksum), "{wrong}");
        }
        assert_eq!(Join::parse("gwj1.").err(), Some(BadToken::Checksum));
        assert_eq!(
            Join::parse("").map(|_| ()).unwrap_err().to_string(),
            "this is no join token: one begins with gwj1."
        );
    }

    #[test]
    fn an_admin_token_opens_what_its_role_says_until_it_expires() {
        let token = Admin::generate();
        let mut cluster = Cluster::default();
        let stored = token.stored(Role::Operator, "ci".to_owned(), Some(1_000));
        cluster.admin_tokens.insert(token.id.clone(), stored);
        assert_eq!(verify_admin(&cluster, &token.text(), 999), Some(("ci".to_owned(), Role::Operator)));
        assert_eq!(verify_admin(&cluster, &token.text(), 1_000), None);
        let forged = Admin { secret: hex(&[1; SECRET_BYTES]), ..token.clone() };
        assert_eq!(verify_admin(&cluster, &forged.text(), 0), None);
        assert_eq!(verify_admin(&cluster, &Admin::generate().text(), 0), None);
    }

    #[test]
    fn keys_have_the_form_that_is_promised() {
        let (one, digest, hint) = issue_key(&[1; 32]);
        let (other, ..) = issue_key(&[1; 32]);
        assert_ne!(one, other);
        assert_eq!((one.len(), digest.len()), (8 + 30 + 6, 64));
        assert!(one.ends_with(&hint) && model::key::well_formed(&one));
    }

    #[test]
    fn hexadecimal_goes_both_ways() {
        assert_eq!(unhex(&hex(&[0, 1, 0xab, 0xff])), Some(vec![0, 1, 0xab, 0xff]));
        assert_eq!((unhex("abc"), unhex("zz"), unhex("é")), (None, None, None));
    }
}
