//! A documented configuration file as people read it: sections and options, each with the comment above it.
//!
//! The files keep to a plain form, which is held here: one option a line, and a comment right above each option and each
//! section. `#key = value`, without a space, is an option without a default.

/// A section with its comment.
#[derive(Debug)]
pub struct Section {
    /// With dots, as in `dispatcher.deliver`.
    pub name: String,
    pub comment: String,
    pub options: Vec<Documented>,
}

/// An option with its comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Documented {
    /// With the section's name before it.
    pub key: String,
    /// One line. Where the option follows right after the section, it is the section's.
    pub comment: String,
    /// As it is written.
    pub value: String,
    pub has_default: bool,
}

/// All sections, in their order. The comment at the top of the file is nobody's.
pub fn parse(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut comment = Vec::new();
    for line in text.lines() {
        if let Some(prose) = prose(line) {
            comment.push(prose);
        } else if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            sections.push(Section {
                name: name.to_owned(),
                comment: comment.join(" "),
                options: Vec::new(),
            });
        } else if line.is_empty() {
            comment.clear();
        } else {
            let section = sections.last_mut().expect("a section before every option");
            let option = option(line, &section.name, &comment.join(" "));
            section.options.push(option);
            comment.clear();
        }
    }
    sections
}

/// The same file with every option switched on.
pub fn with_every_option(text: &str) -> String {
    let on = |line: &str| match prose(line) {
        None => line.trim_start_matches('#').to_owned(),
        Some(_) => line.to_owned(),
    };
    text.lines().map(on).collect::<Vec<_>>().join("\n")
}

fn prose(line: &str) -> Option<&str> {
    if line == "#" {
        return Some("");
    }
    line.strip_prefix("# ")
}

fn option(line: &str, section: &str, comment: &str) -> Documented {
    let (key, value) = line
        .split_once(" = ")
        .unwrap_or_else(|| panic!("not a comment, a section or an option: {line}"));
    assert!(!comment.is_empty(), "no comment above {line}");
    Documented {
        key: format!("{section}.{}", key.trim_start_matches('#')),
        comment: comment.to_owned(),
        value: value.to_owned(),
        has_default: !line.starts_with('#'),
    }
}
