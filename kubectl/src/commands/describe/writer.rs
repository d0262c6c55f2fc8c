//! Lines with tab stops: cells of neighbouring lines are aligned, as upstream's tab writer does.

/// Collects lines; each is indented by its level, cells are separated by tabs.
#[derive(Debug, Default)]
pub struct Writer {
    lines: Vec<String>,
}

impl Writer {
    /// One line at a level: cells separated by tabs.
    pub fn line(&mut self, level: usize, text: impl AsRef<str>) {
        self.lines.push(format!("{}{}", "  ".repeat(level), text.as_ref()));
    }

    /// `Name:` and a value.
    pub fn field(&mut self, level: usize, name: &str, value: impl std::fmt::Display) {
        self.line(level, format!("{name}:\t{value}"));
    }

    /// `Name:` and a value, unless it is empty.
    pub fn some(&mut self, level: usize, name: &str, value: &str) {
        if !value.is_empty() {
            self.field(level, name, value);
        }
    }

    /// The text: in each run of lines that have a column, the column is as wide as its widest cell and two more.
    #[must_use]
    pub fn finish(self) -> String {
        let mut rows: Vec<Vec<String>> =
            self.lines.iter().map(|l| l.split('\t').map(str::to_owned).collect()).collect();
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        for column in 0..columns.saturating_sub(1) {
            let mut begin = 0;
            while begin < rows.len() {
                let has = |row: &Vec<String>| row.len() > column + 1;
                if !has(&rows[begin]) {
                    begin += 1;
                    continue;
                }
                let end = (begin..rows.len()).find(|i| !has(&rows[*i])).unwrap_or(rows.len());
                let width = rows[begin..end].iter().map(|r| r[column].chars().count()).max().unwrap_or(0) + 2;
                for row in &mut rows[begin..end] {
                    let pad = width - row[column].chars().count();
                    row[column].extend(std::iter::repeat_n(' ', pad));
                }
                begin = end;
            }
        }
        rows.into_iter().map(|row| row.concat().trim_end().to_owned() + "\n").collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_neighbouring_lines_are_aligned() {
        let mut writer = Writer::default();
        writer.field(0, "Name", "web");
        writer.field(0, "Namespace", "ns");
        writer.line(0, "Containers:");
        writer.field(1, "Image", "x");
        assert_eq!(writer.finish(), "Name:       web\nNamespace:  ns\nContainers:\n  Image:  x\n");
    }
}
