//! A Jinja environment in which templates written for Python's transformers library render alike.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind};

/// Deepest nesting that `tojson` writes.
const MAX_JSON_DEPTH: usize = 100;

pub fn environment() -> Result<Environment<'static>, Error> {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("tojson", tojson);
    Ok(environment)
}

/// Turns the tags {% generation %} and {% endgeneration %}, which only mark text for training,
/// into a block that changes nothing.
pub fn without_generation_tags(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(size) = rest[start..].find("%}") else { break };
        let (tag, after) = rest[start..].split_at(size);
        let word = tag[2..].trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        result.push_str(&rest[..start]);
        match word {
            "generation" => result.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => result.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => result.push_str(tag),
        }
        rest = after;
    }
    result + rest
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// The local time, as Python's datetime.now().strftime does.
fn strftime_now(format: String) -> Result<String, Error> {
    jiff::fmt::strtime::format(&format, &jiff::Zoned::now())
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// Python's json.dumps with ensure_ascii off by default; Jinja's own would escape HTML.
fn tojson(value: &Value, ensure_ascii: Option<bool>, options: Kwargs) -> Result<String, Error> {
    let named: Option<bool> = options.get("ensure_ascii")?;
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let item_default = if indent.is_some() { "," } else { ", " };
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => return Err(bad_json("separators must be two strings")),
        None => (item_default.to_owned(), ": ".to_owned()),
    };
    let mut writer = JsonWriter {
        text: String::new(),
        ensure_ascii: ensure_ascii.or(named).unwrap_or(false),
        indent,
        separators: (item, key),
        sort_keys: sort_keys.unwrap_or(false),
    };
    writer.write(value, 0)?;
    Ok(writer.text)
}

fn bad_json(reason: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("tojson: {reason}"))
}

struct JsonWriter {
    text: String,
    ensure_ascii: bool,
    indent: Option<usize>,
    separators: (String, String), // between items, after keys
    sort_keys: bool,
}

impl JsonWriter {
    fn write(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_JSON_DEPTH {
            return Err(bad_json("the value is nested too deeply"));
        }
        match value.kind() {
            ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.text.push_str(&value.to_string()),
            ValueKind::String => self.write_string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.write_list(value, depth)?,
            ValueKind::Map => self.write_map(value, depth)?,
            ValueKind::Undefined => return Err(bad_json("the value is undefined")),
            _ => return Err(bad_json("the value can not be written as JSON")),
        }
        Ok(())
    }

    fn write_list(&mut self, list: &Value, depth: usize) -> Result<(), Error> {
        self.text.push('[');
        let mut count = 0;
        for item in list.try_iter()? {
            self.begin_item(count, depth);
            self.write(&item, depth + 1)?;
            count += 1;
        }
        self.end_items(count, depth);
        self.text.push(']');
        Ok(())
    }

    fn write_map(&mut self, map: &Value, depth: usize) -> Result<(), Error> {
        self.text.push('{');
        let mut keys: Vec<Value> = map.try_iter()?.collect();
        if self.sort_keys {
            keys.sort();
        }
        for (index, key) in keys.iter().enumerate() {
            self.begin_item(index, depth);
            match key.as_str() {
                Some(text) => self.write_string(text),
                None => self.write_string(&key_text(key)),
            }
            let separator = self.separators.1.clone();
            self.text.push_str(&separator);
            self.write(&map.get_item(key)?, depth + 1)?;
        }
        self.end_items(keys.len(), depth);
        self.text.push('}');
        Ok(())
    }

    fn begin_item(&mut self, index: usize, depth: usize) {
        if index > 0 {
            self.text.push_str(&self.separators.0);
        }
        self.new_line(depth + 1);
    }

    fn end_items(&mut self, count: usize, depth: usize) {
        if count > 0 {
            self.new_line(depth);
        }
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(width) = self.indent {
            self.text.push('\n');
            self.text.push_str(&" ".repeat(width.min(16) * depth));
        }
    }

    fn write_string(&mut self, text: &str) {
        let quoted = serde_json::Value::from(text).to_string();
        if !self.ensure_ascii {
            self.text.push_str(&quoted);
            return;
        }
        for letter in quoted.chars() {
            if letter.is_ascii() {
                self.text.push(letter);
            } else {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    self.text.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
}

fn key_text(key: &Value) -> String {
    match key.kind() {
        ValueKind::None => "null".to_owned(),
        ValueKind::Bool => key.is_true().to_string(),
        _ => key.to_string(),
    }
}
