//! Reads the literals of a Python file: calls with named arguments, lists, dictionaries, texts,
//! numbers. Enough for data that was written by a program; nothing is ever run.
//!
//! Invariants: numbers stay text; hostile input ends in an error with its line, since depth is
//! limited and every step consumes something.

/// Deepest nesting.
const DEPTH_LIMIT: usize = 48;

/// A literal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `Name(first, name=value)`.
    Call {
        /// With its dots, for example `datetime.date`.
        name: String,
        /// Those without a name.
        positional: Vec<Value>,
        /// Those with one.
        named: Vec<(String, Value)>,
    },
    /// `[a, b]`.
    List(Vec<Value>),
    /// `{a: b}`.
    Dict(Vec<(Value, Value)>),
    /// A text.
    Text(String),
    /// A number, as written.
    Number(String),
    /// `True`, `None`, `datetime.UTC`.
    Name(String),
}

impl Value {
    /// The named argument of a call, unless it is `None`.
    pub fn argument(&self, wanted: &str) -> Option<&Self> {
        let Self::Call { named, .. } = self else { return None };
        let given = named.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
        given.filter(|value| !matches!(value, Self::Name(name) if name == "None"))
    }

    /// The arguments of a call of this name.
    pub fn call(&self, wanted: &str) -> Option<&[Self]> {
        match self {
            Self::Call { name, positional, .. } if name == wanted => Some(positional),
            _ => None,
        }
    }

    /// A text.
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// A list.
    pub fn list(&self) -> Option<&[Self]> {
        if let Self::List(items) = self { Some(items) } else { None }
    }
}

/// Where a file is not what was expected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct PythonError {
    /// From 1.
    pub line: usize,
    /// What was expected.
    pub what: &'static str,
}

/// The value that a file assigns to a name at the beginning of a line.
pub fn assigned(text: &str, name: &str) -> Result<Value, PythonError> {
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let rest = line.strip_prefix(name);
        let rest = rest.filter(|rest| rest.starts_with([' ', ':', '=']));
        if let Some(equals) = rest.and_then(|rest| rest.find('=')) {
            let mut reader = Reader { text, at: offset + name.len() + equals + 1 };
            return reader.value(0);
        }
        offset += line.len();
    }
    Err(PythonError { line: 1, what: "the name is not assigned anywhere" })
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Result<Value, PythonError> {
        if depth > DEPTH_LIMIT {
            return Err(self.error("it is nested too deeply"));
        }
        match self.peek() {
            Some('[') => Ok(Value::List(self.items('[', ']', |reader| reader.value(depth + 1))?)),
            Some('{') => Ok(Value::Dict(self.items('{', '}', |reader| {
                let key = reader.value(depth + 1)?;
                reader.expect(':', "a colon")?;
                Ok((key, reader.value(depth + 1)?))
            })?)),
            Some('(') => {
                self.expect('(', "a parenthesis")?;
                let value = self.value(depth + 1)?;
                self.expect(')', "a closing parenthesis")?;
                Ok(value)
            }
            Some('\'' | '"') => self.texts(),
            Some(c) if c.is_ascii_digit() || c == '-' => {
                Ok(Value::Number(self.take(|c| c.is_ascii_alphanumeric() || "+-._".contains(c)).into()))
            }
            Some(c) if c.is_ascii_alphabetic() || c == '_' => self.name(depth),
            _ => Err(self.error("a value was expected")),
        }
    }

    fn name(&mut self, depth: usize) -> Result<Value, PythonError> {
        let name = self.take(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.').to_owned();
        if self.peek() != Some('(') {
            return Ok(Value::Name(name));
        }
        let arguments = self.items('(', ')', |reader| {
            let value = reader.value(depth + 1)?;
            match value {
                Value::Name(name) if reader.peek() == Some('=') => {
                    reader.expect('=', "an equals sign")?;
                    Ok((Some(name), reader.value(depth + 1)?))
                }
                value => Ok((None, value)),
            }
        })?;
        let (mut positional, mut named) = (Vec::new(), Vec::new());
        for (name, value) in arguments {
            match name {
                Some(name) => named.push((name, value)),
                None => positional.push(value),
            }
        }
        Ok(Value::Call { name, positional, named })
    }

    fn items<T>(
        &mut self,
        open: char,
        close: char,
        mut item: impl FnMut(&mut Self) -> Result<T, PythonError>,
    ) -> Result<Vec<T>, PythonError> {
        self.expect(open, "an opening bracket")?;
        let mut items = Vec::new();
        while self.peek() != Some(close) {
            items.push(item(self)?);
            if self.peek() != Some(close) {
                self.expect(',', "a comma or a closing bracket")?;
            }
        }
        self.expect(close, "a closing bracket")?;
        Ok(items)
    }

    /// Texts beside each other are one.
    fn texts(&mut self) -> Result<Value, PythonError> {
        let mut whole = String::new();
        while let Some(quote @ ('\'' | '"')) = self.peek() {
            self.expect(quote, "a quote")?;
            loop {
                match self.next() {
                    Some(c) if c == quote => break,
                    Some('\\') => whole.push(self.escaped()?),
                    Some('\n') | None => return Err(self.error("a text does not end")),
                    Some(c) => whole.push(c),
                }
            }
        }
        Ok(Value::Text(whole))
    }

    fn escaped(&mut self) -> Result<char, PythonError> {
        let digits = match self.next() {
            Some('n') => return Ok('\n'),
            Some('t') => return Ok('\t'),
            Some('r') => return Ok('\r'),
            Some(c @ ('\\' | '\'' | '"')) => return Ok(c),
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            _ => return Err(self.error("an unknown escape in a text")),
        };
        let rest = self.text.get(self.at..).unwrap_or_default();
        let code = rest.get(..digits).and_then(|code| u32::from_str_radix(code, 16).ok());
        let c = code.and_then(char::from_u32).ok_or_else(|| self.error("a bad escape in a text"))?;
        self.at += digits;
        Ok(c)
    }

    fn expect(&mut self, wanted: char, what: &'static str) -> Result<(), PythonError> {
        match self.peek() {
            Some(c) if c == wanted => {
                self.at += c.len_utf8();
                Ok(())
            }
            _ => Err(self.error(what)),
        }
    }

    /// What comes after blanks and comments.
    fn peek(&mut self) -> Option<char> {
        loop {
            let rest = self.text.get(self.at..)?;
            let c = rest.chars().next()?;
            if c == '#' {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if c.is_ascii_whitespace() {
                self.at += 1;
            } else {
                return Some(c);
            }
        }
    }

    fn next(&mut self) -> Option<char> {
        let c = self.text.get(self.at..)?.chars().next()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn take(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let taken = &rest[..rest.find(|c| !belongs(c)).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }

    fn error(&self, what: &'static str) -> PythonError {
        let before = self.text.as_bytes().iter().take(self.at);
        PythonError { line: before.filter(|&&byte| byte == b'\n').count() + 1, what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_read_and_numbers_stay_text() {
        let text = "import x\nitems: list[Item] = [\n    Item(a='b\\'c' \"d\", n=Decimal('0.10'), when={True: -1.50}), # end\n]\n";
        let item = &assigned(text, "items").unwrap().list().unwrap()[0].clone();
        assert_eq!(item.argument("a").and_then(Value::text), Some("b'cd"));
        let amount = item.argument("n").and_then(|value| value.call("Decimal")).unwrap();
        assert_eq!(amount, [Value::Text("0.10".into())]);
        let when = vec![(Value::Name("True".into()), Value::Number("-1.50".into()))];
        assert_eq!(item.argument("when"), Some(&Value::Dict(when)));
    }

    #[test]
    fn what_is_broken_ends_in_an_error_with_its_line() {
        for text in ["x = [", "x = ['a", "x = [a b]", "x = {a}", "x = '\\q'", "x = '\\u12", "x =", "y = 1"] {
            assert!(assigned(text, "x").is_err(), "{text}");
        }
        assert_eq!(assigned("a = 1\nx = [\n1\n2]", "x").unwrap_err().line, 4);
    }

    #[test]
    fn depth_is_limited() {
        let deep = format!("x = {}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(assigned(&deep, "x").is_err());
    }
}
