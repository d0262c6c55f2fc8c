//! Names of images.

/// A text is no image name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("couldn't parse image name {name:?}: {why}")]
pub struct InvalidName {
    name: String,
    why: &'static str,
}

/// The name with `:latest` when it has neither tag nor digest.
pub fn with_default_tag(name: &str) -> Result<String, InvalidName> {
    let fail = |why| InvalidName { name: name.to_owned(), why };
    let (rest, digest) = match name.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (name, None),
    };
    if rest.is_empty() {
        return Err(fail("invalid reference format"));
    }
    let (repository, tag) = split_tag(rest);
    let path =
        repository.split_once('/').filter(|(host, _)| is_host(host)).map_or(repository, |(_, path)| path);
    if path.chars().any(|c| c.is_ascii_uppercase()) {
        return Err(fail("invalid reference format: repository name must be lowercase"));
    }
    let component = |c: &str| {
        !c.is_empty()
            && c.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-'))
            && c.starts_with(|c: char| c.is_ascii_alphanumeric())
            && c.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    if !path.split('/').all(component) {
        return Err(fail("invalid reference format"));
    }
    if let Some(tag) = tag
        && (tag.is_empty()
            || tag.len() > 128
            || !tag.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
            || tag.starts_with(['.', '-']))
    {
        return Err(fail("invalid reference format"));
    }
    if let Some(digest) = digest {
        let hex = digest.split_once(':').map(|(_, hex)| hex).unwrap_or_default();
        if hex.len() < 32 || !hex.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(fail("invalid reference format"));
        }
    }
    Ok(if tag.is_none() && digest.is_none() { format!("{name}:latest") } else { name.to_owned() })
}

/// Repository and tag: the colon of a port stands before a slash.
#[must_use]
pub fn split_tag(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (name, None),
    }
}

fn is_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.chars().any(|c| c.is_ascii_uppercase())
}

/// The repository in full, `docker.io/library/busybox` for `busybox`, for comparison with registries.
#[must_use]
pub fn full_repository(name: &str) -> String {
    let name = name.split_once('@').map_or(name, |(rest, _)| rest);
    let (repository, _) = split_tag(name);
    match repository.split_once('/') {
        Some((host, _)) if is_host(host) => repository.to_owned(),
        Some(_) => format!("docker.io/{repository}"),
        None => format!("docker.io/library/{repository}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_a_tag() {
        let digest = format!("a@sha256:{}", "0".repeat(64));
        let cases = [
            ("busybox", "busybox:latest"),
            ("busybox:1.36", "busybox:1.36"),
            ("host:5000/a/b", "host:5000/a/b:latest"),
            ("host:5000/a/b:v1", "host:5000/a/b:v1"),
            (digest.as_str(), digest.as_str()),
        ];
        for (name, expected) in cases {
            assert_eq!(with_default_tag(name).as_deref(), Ok(expected));
        }
        for name in ["", "Busybox", "a b", "a:", "a@sha256:1", "a//b", "_a"] {
            assert!(with_default_tag(name).is_err(), "{name}");
        }
    }

    #[test]
    fn repositories_are_completed() {
        let cases = [
            ("busybox:1", "docker.io/library/busybox"),
            ("me/app", "docker.io/me/app"),
            ("ghcr.io/me/app:v1", "ghcr.io/me/app"),
            ("localhost:5000/app", "localhost:5000/app"),
        ];
        for (name, expected) in cases {
            assert_eq!(full_repository(name), expected);
        }
    }
}
