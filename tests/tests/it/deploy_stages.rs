//! `deploy/Dockerfile` in parts: its stages, each with its instructions.

use super::deploy_repository as repository;

/// What one `FROM` begins.
#[derive(Debug)]
pub struct Stage {
    pub name: String,
    /// An image, or an earlier stage.
    pub base: String,
    pub instructions: Vec<Instruction>,
}

/// `WORD rest`, with continued lines joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    pub word: String,
    pub rest: String,
}

pub struct Dockerfile(pub Vec<Stage>);

impl Dockerfile {
    pub fn read() -> Self {
        Self::parse(&repository::read("deploy/Dockerfile"))
    }

    fn parse(text: &str) -> Self {
        let lines: Vec<_> = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'))
            .collect();
        let joined = lines.join("\n").replace("\\\n", " ");
        let mut stages: Vec<Stage> = Vec::new();
        for line in joined.lines().filter(|line| !line.trim().is_empty()) {
            let (word, rest) = line.split_once(' ').expect("an instruction with arguments");
            let rest = rest.split_whitespace().collect::<Vec<_>>().join(" ");
            if word == "FROM" {
                let (base, name) = rest.split_once(" AS ").expect("a stage with a name");
                stages.push(Stage {
                    name: name.to_owned(),
                    base: base.to_owned(),
                    instructions: Vec::new(),
                });
            } else {
                let word = word.to_owned();
                let stage = stages.last_mut().expect("FROM first");
                stage.instructions.push(Instruction { word, rest });
            }
        }
        Self(stages)
    }

    pub fn stage(&self, name: &str) -> &Stage {
        let stage = self.0.iter().find(|stage| stage.name == name);
        stage.unwrap_or_else(|| panic!("no stage {name}"))
    }

    /// Those that an image is made of: they say what runs in it.
    pub fn targets(&self) -> impl Iterator<Item = &Stage> {
        self.0
            .iter()
            .filter(|stage| stage.last("ENTRYPOINT").is_some())
    }

    /// The last instruction of that word that holds for a stage, its own or its base's.
    pub fn holds(&self, stage: &Stage, word: &str) -> Option<String> {
        stage.last(word).map(ToOwned::to_owned).or_else(|| {
            let base = self.0.iter().find(|base| base.name == stage.base)?;
            self.holds(base, word)
        })
    }
}

impl Stage {
    pub fn all<'s>(&'s self, word: &'s str) -> impl Iterator<Item = &'s str> {
        let own = self.instructions.iter();
        own.filter(move |instruction| instruction.word == word)
            .map(|instruction| instruction.rest.as_str())
    }

    pub fn last<'s>(&'s self, word: &'s str) -> Option<&'s str> {
        self.all(word).last()
    }

    /// The program that the target runs.
    pub fn program(&self) -> String {
        let entrypoint = self.last("ENTRYPOINT").expect("an entrypoint");
        let words: Vec<String> =
            serde_json::from_str(entrypoint).expect("an entrypoint without a shell");
        assert_eq!(words.len(), 1, "{words:?}");
        words[0].clone()
    }

    pub fn ports(&self) -> Vec<u16> {
        let ports = self.last("EXPOSE").unwrap_or_default().split_whitespace();
        ports.map(|port| port.parse().unwrap()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Dockerfile;

    #[test]
    fn continued_lines_are_one_instruction_and_comments_none() {
        let file = Dockerfile::parse(
            "# top\nFROM a:1 AS x\nRUN b \\\n# between\n  && c\n\nUSER 7\nFROM x AS y\n",
        );
        let stage = file.stage("x");
        assert_eq!(stage.all("RUN").collect::<Vec<_>>(), ["b && c"]);
        assert_eq!(file.holds(file.stage("y"), "USER").unwrap(), "7");
        assert_eq!(file.targets().count(), 0);
    }
}
