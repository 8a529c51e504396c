//! Lists in every form: tables, one JSON document, one document per line, CSV. Page after page, so that a list of any
//! length needs little memory.

use std::io;

use serde::Serialize;

use crate::{args::Shape, output::Output};

/// How a list of `T` is printed.
pub(crate) struct List<T> {
    /// Its name in JSON.
    pub(crate) name: &'static str,
    /// Columns of the table, and their greatest widths.
    pub(crate) columns: Vec<(&'static str, usize)>,
    /// Cells of the table, safe to print.
    pub(crate) row: fn(&T) -> Vec<String>,
    /// Columns of the CSV.
    pub(crate) titles: Vec<String>,
    /// Cells of the CSV, as they are.
    pub(crate) cells: fn(&T) -> Vec<String>,
    /// What the table says if there is nothing.
    pub(crate) nothing: &'static str,
}

/// A list that is being printed.
pub(crate) struct Printer<'a, T> {
    list: &'a List<T>,
    shape: Shape,
    printed: usize,
}

impl<T: Serialize> List<T> {
    /// Prints what comes before the first item.
    pub(crate) fn begin<'a>(&'a self, out: &mut Output, shape: Shape) -> io::Result<Printer<'a, T>> {
        match shape {
            Shape::Json => out.raw(&format!("{{\"{}\":[", self.name))?,
            Shape::Csv => out.csv(&self.titles)?,
            Shape::NdJson | Shape::Table => {}
        }
        Ok(Printer { list: self, shape, printed: 0 })
    }

    /// Prints a list that is there as a whole.
    pub(crate) fn print(&self, out: &mut Output, shape: Shape, items: &[T]) -> io::Result<()> {
        let mut printer = self.begin(out, shape)?;
        printer.page(out, items)?;
        printer.end(out, &[])
    }
}

impl<T: Serialize> Printer<'_, T> {
    /// How many items were printed.
    pub(crate) fn printed(&self) -> usize {
        self.printed
    }

    /// Prints some items. Each page of a table has its own titles and widths.
    pub(crate) fn page(&mut self, out: &mut Output, items: &[T]) -> io::Result<()> {
        if self.shape == Shape::Table && !items.is_empty() {
            if self.printed > 0 {
                out.line("")?;
            }
            out.table(&self.list.columns, &items.iter().map(self.list.row).collect::<Vec<_>>())?;
        }
        for item in items {
            match self.shape {
                Shape::Json => {
                    out.raw(if self.printed > 0 { ",\n" } else { "\n" })?;
                    out.json_part(item)?;
                }
                Shape::NdJson => out.json(item)?,
                Shape::Csv => out.csv((self.list.cells)(item))?,
                Shape::Table => {}
            }
            self.printed += 1;
        }
        out.flush()
    }

    /// Prints what comes behind the last item; `also` are further members of the JSON document.
    pub(crate) fn end(self, out: &mut Output, also: &[(&str, serde_json::Value)]) -> io::Result<()> {
        match self.shape {
            Shape::Json => {
                out.raw("\n]")?;
                for (name, value) in also {
                    out.raw(&format!(",\"{name}\":"))?;
                    out.json_part(value)?;
                }
                out.line("}")
            }
            Shape::Table if self.printed == 0 => out.line(self.list.nothing),
            _ => Ok(()),
        }
    }
}

/// Titles as a list has them.
pub(crate) fn titles<'a>(titles: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    titles.into_iter().map(str::to_owned).collect()
}
