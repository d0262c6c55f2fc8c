//! Addresses of electronic mail, as Go's `net/mail.ParseAddress` takes them: `local@domain`, or a name and the address
//! in angle brackets, with comments.

/// Whether the text is exactly one address.
pub(super) fn is_address(text: &str) -> bool {
    let mut reader = Reader { rest: text };
    reader.address().is_some() && {
        reader.space();
        reader.rest.is_empty()
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn address(&mut self) -> Option<()> {
        self.space();
        let start = self.rest;
        if self.spec().is_some() {
            return Some(());
        }
        self.rest = start;
        // A name, then the address in brackets.
        while !self.rest.starts_with('<') {
            self.word()?;
            self.space();
        }
        self.take('<')?;
        self.spec()?;
        self.take('>')
    }

    /// `local@domain`
    fn spec(&mut self) -> Option<()> {
        if self.rest.starts_with('"') {
            self.quoted()?
        } else {
            self.dot_atom(false)?
        }
        self.take('@')?;
        self.space();
        if self.rest.starts_with('[') { self.literal() } else { self.dot_atom(false) }
    }

    fn word(&mut self) -> Option<()> {
        if self.rest.starts_with('"') { self.quoted() } else { self.dot_atom(true) }
    }

    fn take(&mut self, wanted: char) -> Option<()> {
        self.rest = self.rest.strip_prefix(wanted)?;
        Some(())
    }

    /// Letters and marks with single dots between them. In names dots may stand anywhere.
    fn dot_atom(&mut self, loose: bool) -> Option<()> {
        let end = self.rest.find(|c| !is_atom(c) && c != '.').unwrap_or(self.rest.len());
        let (atom, rest) = self.rest.split_at(end);
        let dots = atom.starts_with('.') || atom.ends_with('.') || atom.contains("..");
        if atom.is_empty() || dots && !loose {
            return None;
        }
        self.rest = rest;
        Some(())
    }

    fn quoted(&mut self) -> Option<()> {
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Some(());
                }
                '\\' => drop(chars.next()?),
                '\r' | '\n' => return None,
                _ => {}
            }
        }
        None
    }

    /// An address of a host in brackets.
    fn literal(&mut self) -> Option<()> {
        let (inside, rest) = self.rest.strip_prefix('[')?.split_once(']')?;
        let address = inside.strip_prefix("IPv6:").unwrap_or(inside);
        address.parse::<std::net::IpAddr>().ok()?;
        self.rest = rest;
        Some(())
    }

    /// Blanks and comments.
    fn space(&mut self) {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t']);
            let Some(inside) = self.rest.strip_prefix('(') else { return };
            let mut depth = 1;
            let end = inside.char_indices().find(|(_, c)| {
                depth += i32::from(*c == '(') - i32::from(*c == ')');
                depth == 0
            });
            let Some((end, _)) = end else { return };
            self.rest = &inside[end + 1..];
        }
    }
}

fn is_atom(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii() && !c.is_control()
}
