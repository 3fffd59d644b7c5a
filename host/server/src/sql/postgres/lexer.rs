//! Postgres' SQL, cut into words, quoted things and symbols, as its server does with its default settings.

#[derive(Debug, PartialEq)]
pub(super) enum Token<'t> {
    /// A name or a keyword.
    Word(&'t str),
    /// A quoted name, a string, a number, a parameter: never a keyword.
    Other,
    /// Anything else.
    Symbol(char),
}

/// Reads a text from its beginning.
pub(super) struct Lexer<'t>(&'t str);

impl<'t> Lexer<'t> {
    pub(super) fn of(text: &'t str) -> Lexer<'t> {
        Lexer(text)
    }

    /// The next token; comments and spaces are none. What is not closed goes to the end: the server will complain.
    pub(super) fn next(&mut self) -> Option<Token<'t>> {
        loop {
            let text = self.0.trim_start();
            let first = text.chars().next()?;
            let bytes = text.as_bytes();
            let (token, length) = match first {
                '-' if text.starts_with("--") => {
                    self.0 = text.split_once('\n').map_or("", |(_, rest)| rest);
                    continue;
                }
                '/' if text.starts_with("/*") => {
                    self.0 = &text[comment(bytes)..];
                    continue;
                }
                '\'' => (Token::Other, quoted(bytes, b'\'', false)),
                '"' => (Token::Other, quoted(bytes, b'"', false)),
                'e' | 'E' if bytes.get(1) == Some(&b'\'') => {
                    (Token::Other, 1 + quoted(&bytes[1..], b'\'', true))
                }
                '$' => match dollar(text) {
                    Some(length) => (Token::Other, length),
                    None => (Token::Symbol('$'), 1),
                },
                c if c.is_ascii_digit() => (Token::Other, run(text)),
                c if c.is_alphabetic() || c == '_' || !c.is_ascii() => {
                    let length = run(text);
                    (Token::Word(&text[..length]), length)
                }
                c => (Token::Symbol(c), c.len_utf8()),
            };
            self.0 = &text[length..];
            return Some(token);
        }
    }
}

/// The length of a name or number.
fn run(text: &str) -> usize {
    text.find(|c: char| c.is_ascii() && !c.is_ascii_alphanumeric() && c != '_' && c != '$')
        .unwrap_or(text.len())
}

/// The length of a comment; they nest.
fn comment(text: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while at < text.len() {
        let pair = text.get(at..at + 2).unwrap_or_default();
        let step = match pair {
            b"/*" => {
                depth += 1;
                2
            }
            b"*/" => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += step;
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of what stands in quotes; a doubled quote ends nothing, nor does one behind a backslash where those count.
fn quoted(text: &[u8], quote: u8, backslash: bool) -> usize {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'\\' if backslash => at += 2,
            byte if byte == quote && text.get(at + 1) == Some(&quote) => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// The length of `$tag$ … $tag$`, or of a parameter such as `$1`.
fn dollar(text: &str) -> Option<usize> {
    let rest = &text[1..];
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    if digits > 0 {
        return Some(1 + digits);
    }
    let end = rest.find('$')?;
    let is_tag = rest[..end]
        .chars()
        .all(|c| c.is_alphanumeric() || c == '_' || !c.is_ascii());
    let tag = &text[..end + 2];
    let body = is_tag.then(|| &text[tag.len()..])?;
    Some(body.find(tag).map_or(text.len(), |at| tag.len() + at + tag.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        let mut lexer = Lexer::of(text);
        let mut words = Vec::new();
        while let Some(token) = lexer.next() {
            if let Token::Word(word) = token {
                words.push(word);
            }
        }
        words
    }

    #[test]
    fn what_is_quoted_or_commented_has_no_words() {
        for (text, expected) in [
            ("a 'b ''c'' d' e", &["a", "e"][..]),
            ("a E'b \\' c' d", &["a", "d"]),
            ("a 'b\\' c", &["a", "c"]),
            ("a \"b \"\" c\" d", &["a", "d"]),
            ("a $$ b $c$ d $$ e", &["a", "e"]),
            ("a $x$ b $$ c $x$ d", &["a", "d"]),
            ("a $1 b$c$d $ e", &["a", "b$c$d", "e"]),
            ("a -- b\nc", &["a", "c"]),
            ("a --b", &["a"]),
            ("a /* b /* c */ d */ e", &["a", "e"]),
            ("a - - b / * c", &["a", "b", "c"]),
            ("a 1e5 0x1f b", &["a", "b"]),
            ("größe _x é", &["größe", "_x", "é"]),
            ("a 'open b", &["a"]),
            ("a /* open b", &["a"]),
            ("a $$ open b", &["a"]),
            ("a \"", &["a"]),
            ("a E'\\", &["a"]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }
}
