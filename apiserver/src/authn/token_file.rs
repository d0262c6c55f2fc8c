//! Static tokens from a file (`--token-auth-file`; upstream `token/tokenfile`): `token,user,uid[,"group,group"]`.

use std::collections::HashMap;

use super::{TokenAuthenticator, TokenError, TokenUser, User};

/// Tokens and the users they stand for.
#[derive(Debug, Default)]
pub struct TokenFile {
    users: HashMap<String, User>,
}

/// A line that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Fewer than three columns.
    #[error("token file must have at least 3 columns (token, user name, user uid), found {0}")]
    Columns(usize),
    /// A quote that does not end.
    #[error("line {0}: unterminated quote")]
    Quote(usize),
}

impl TokenFile {
    /// Reads the file's text. Lines with an empty token are skipped; of two equal tokens the last one counts.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut users = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let columns = split_csv(line).ok_or(Error::Quote(number + 1))?;
            let [token, name, uid, rest @ ..] = columns.as_slice() else {
                return Err(Error::Columns(columns.len()));
            };
            if token.is_empty() {
                tracing::warn!(line = number + 1, "empty token in token file, skipped");
                continue;
            }
            let groups = rest.first().map(String::as_str).unwrap_or_default();
            let groups = groups.split(',').filter(|g| !g.is_empty()).map(str::to_owned).collect();
            let user = User { name: name.clone(), uid: uid.clone(), groups, ..User::default() };
            users.insert(token.clone(), user);
        }
        Ok(Self { users })
    }
}

/// Splits one CSV line; fields may be quoted with `"`, a doubled quote stands for one.
fn split_csv(line: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.last_mut()?;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.trim().is_empty() => {
                field.clear();
                quoted = true;
            }
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    (!quoted).then_some(fields)
}

#[async_trait::async_trait]
impl TokenAuthenticator for TokenFile {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<TokenUser>, TokenError> {
        let user = self.users.get(token).cloned();
        // Static tokens are good for the server's own audiences, which is all anybody may ask them for.
        Ok(user.map(|user| TokenUser { user, audiences: audiences.to_vec() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tokens_name_users_with_groups() {
        let file =
            TokenFile::parse("t1,alice,1\nt2,bob,2,\"dev,ops\"\n\n,x,3\nt3,\"c,d\",4,g\n").expect("valid");
        let user = async |token| {
            file.authenticate_token(token, &[]).await.expect("no error").map(|found| found.user)
        };
        assert_eq!(user("t1").await.expect("alice").groups, Vec::<String>::new());
        let bob = user("t2").await.expect("bob");
        assert_eq!((bob.name.as_str(), bob.groups), ("bob", vec!["dev".to_owned(), "ops".to_owned()]));
        assert_eq!(user("t3").await.expect("quoted").name, "c,d");
        assert!(user("").await.is_none());
    }

    #[test]
    fn short_lines_are_refused() {
        assert_eq!(TokenFile::parse("a,b").expect_err("two columns"), Error::Columns(2));
    }
}
