//! Bootstrap tokens, with which machines join: as kubeadm makes, lists and removes them.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use client::kube::api::{DeleteParams, ListParams, PostParams};
use client::{Api, Client};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rand::Rng;

/// The group that those who show a token belong to, unless told otherwise.
pub const GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";
/// What tokens are for, unless told otherwise.
pub const USAGES: [&str; 2] = ["signing", "authentication"];

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const ID: usize = 6;
const SECRET: usize = 16;
const LETTERS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// A token: a name that everybody may know, and a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The public part.
    pub id: String,
    /// The secret part.
    pub secret: String,
}

/// A text is no token.
#[derive(Debug, thiserror::Error)]
#[error("the bootstrap token {0:?} was not of the form \"[a-z0-9]{{6}}.[a-z0-9]{{16}}\"")]
pub struct NoToken(String);

fn is_of(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| LETTERS.contains(&b))
}

impl FromStr for Token {
    type Err = NoToken;

    fn from_str(text: &str) -> Result<Self, NoToken> {
        match text.split_once('.') {
            Some((id, secret)) if is_of(id, ID) && is_of(secret, SECRET) => {
                Ok(Self { id: id.to_owned(), secret: secret.to_owned() })
            }
            _ => Err(NoToken(text.to_owned())),
        }
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.id, self.secret)
    }
}

impl Token {
    /// A new one, by chance.
    #[must_use]
    pub fn generate() -> Self {
        let mut random = rand::rng();
        let mut text = |length| {
            (0..length).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect()
        };
        Self { id: text(ID), secret: text(SECRET) }
    }

    /// Its signature of a text, detached: header, nothing, signature.
    ///
    /// # Errors
    /// The library refuses.
    pub fn sign(&self, content: &str) -> Result<String> {
        use base64::Engine;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{}"}}"#, self.id));
        let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
        let key = jsonwebtoken::EncodingKey::from_secret(self.secret.as_bytes());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256)?;
        Ok(format!("{header}..{signature}"))
    }
}

/// What a new token is told.
#[derive(Clone, Debug, clap::Args)]
pub struct CreateArgs {
    /// The token to write, of the form "[a-z0-9]{6}.[a-z0-9]{16}"; one by chance if not given.
    pub token: Option<Token>,
    /// How long the token is good for (for example 1s, 2m, 3h); 0 for ever.
    #[arg(long, default_value = "24h", value_parser = client::leader::parse_duration)]
    pub ttl: Duration,
    /// What the token is good for.
    #[arg(long, value_delimiter = ',', default_values = USAGES, value_parser = ["signing", "authentication"])]
    pub usages: Vec<String>,
    /// Groups of those who show the token.
    #[arg(long, value_delimiter = ',', default_value = GROUP)]
    pub groups: Vec<String>,
    /// A description for people.
    #[arg(long, default_value = "")]
    pub description: String,
    /// Print the whole command by which a machine joins, instead of the token alone.
    #[arg(long)]
    pub print_join_command: bool,
}

fn secret_of(token: &Token, args: &CreateArgs, now: Timestamp) -> Result<Secret> {
    let mut data: Vec<(String, String)> =
        vec![("token-id".into(), token.id.clone()), ("token-secret".into(), token.secret.clone())];
    if !args.description.is_empty() {
        data.push(("description".into(), args.description.clone()));
    }
    if !args.ttl.is_zero() {
        let at = now.checked_add(args.ttl).context("--ttl is too long")?;
        data.push(("expiration".into(), at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
    }
    data.extend(args.usages.iter().map(|usage| (format!("usage-bootstrap-{usage}"), "true".to_owned())));
    for group in &args.groups {
        ensure!(
            group.starts_with("system:bootstrappers:"),
            "the group {group:?} does not begin with system:bootstrappers:"
        );
    }
    if !args.groups.is_empty() {
        data.push(("auth-extra-groups".into(), args.groups.join(",")));
    }
    Ok(Secret {
        metadata: ObjectMeta { name: Some(name_of(&token.id)), ..ObjectMeta::default() },
        type_: Some(TYPE.to_owned()),
        string_data: Some(data.into_iter().collect()),
        ..Secret::default()
    })
}

fn name_of(id: &str) -> String {
    format!("bootstrap-token-{id}")
}

/// Makes a token.
///
/// # Errors
/// There is one of that name, or the API server refuses.
pub async fn create(client: &Client, args: &CreateArgs) -> Result<Token> {
    let token = args.token.clone().unwrap_or_else(Token::generate);
    let api: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let secret = secret_of(&token, args, Timestamp::now())?;
    let created = api.create(&PostParams::default(), &secret).await;
    created.with_context(|| format!("create the token {:?}", token.id))?;
    Ok(token)
}

/// Removes tokens, each given whole or by its public part.
///
/// # Errors
/// One is no token, or there is none such.
pub async fn delete(client: &Client, tokens: &[String]) -> Result<()> {
    let api: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    for text in tokens {
        let id = if is_of(text, ID) { text.clone() } else { text.parse::<Token>()?.id };
        let deleted = api.delete(&name_of(&id), &DeleteParams::default()).await;
        deleted.with_context(|| format!("delete the token {id:?}"))?;
        println!("bootstrap token {id:?} deleted");
    }
    Ok(())
}

/// All tokens, as a table.
///
/// # Errors
/// The API server refuses.
pub async fn list(client: &Client) -> Result<String> {
    let api: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let secrets = api.list(&ListParams::default().fields(&format!("type={TYPE}"))).await?;
    Ok(table(&secrets.items, Timestamp::now()))
}

fn table(secrets: &[Secret], now: Timestamp) -> String {
    let head = ["TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(secrets.iter().map(|s| row(s, now))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0) + 3;
    let widths: Vec<_> = (0..5).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}{}\n", cells.collect::<String>(), row[5])
    };
    rows.iter().map(line).collect()
}

fn row(secret: &Secret, now: Timestamp) -> [String; 6] {
    let text = |key: &str| {
        let value = secret.data.as_ref().and_then(|data| data.get(key));
        value.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).unwrap_or_default()
    };
    let or = |text: String, without: &str| if text.is_empty() { without.to_owned() } else { text };
    let expires = text("expiration");
    let ttl = match expires.parse::<Timestamp>() {
        Ok(at) => short(at.as_second() - now.as_second()),
        Err(_) if expires.is_empty() => "<forever>".to_owned(),
        Err(_) => "<invalid>".to_owned(),
    };
    let usages = ["authentication", "signing"].into_iter();
    let usages: Vec<_> = usages.filter(|usage| text(&format!("usage-bootstrap-{usage}")) == "true").collect();
    [
        format!("{}.{}", text("token-id"), text("token-secret")),
        ttl,
        or(expires, "<never>"),
        or(usages.join(","), "<none>"),
        or(text("description"), "<none>"),
        or(text("auth-extra-groups"), "<none>"),
    ]
}

/// A time in its largest unit.
fn short(seconds: i64) -> String {
    match seconds {
        ..=-2 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        86_400..31_536_000 => format!("{}d", seconds / 86_400),
        _ => format!("{}y", seconds / 31_536_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    #[test]
    fn tokens_have_their_form() {
        for (text, good) in [
            ("abcdef.0123456789abcdef", true),
            ("abcdef.0123456789abcde", false),
            ("abcdeF.0123456789abcdef", false),
            ("abcdef", false),
            ("abcdef.0123456789abcdef.", false),
        ] {
            assert_eq!(text.parse::<Token>().is_ok(), good, "{text}");
        }
        let made = Token::generate();
        assert_eq!(made.to_string().parse::<Token>().expect("of its form"), made);
        assert_ne!(made, Token::generate());
    }

    #[test]
    fn table_shows_what_the_secrets_say() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let args = CreateArgs {
            token: None,
            ttl: Duration::from_secs(3600 * 5),
            usages: USAGES.map(str::to_owned).into(),
            groups: vec![GROUP.to_owned()],
            description: String::new(),
            print_join_command: false,
        };
        let token: Token = "abcdef.0123456789abcdef".parse().expect("a token");
        let mut secret = secret_of(&token, &args, now).expect("a secret");
        let data = secret.string_data.take().into_iter().flatten();
        secret.data = Some(data.map(|(key, value)| (key, ByteString(value.into_bytes()))).collect());
        let expected = "TOKEN                     TTL   EXPIRES                USAGES                   DESCRIPTION   EXTRA GROUPS\n\
            abcdef.0123456789abcdef   5h    2026-01-01T05:00:00Z   authentication,signing   <none>        \
            system:bootstrappers:kubeadm:default-node-token\n";
        assert_eq!(table(&[secret], now), expected);
        let other = CreateArgs { groups: vec!["system:masters".into()], ..args };
        assert!(secret_of(&token, &other, now).is_err());
    }
}
