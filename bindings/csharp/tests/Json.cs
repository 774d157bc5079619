using System;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Text;

/// <summary>
/// A JSON value, and its name where it is an object's member. Numbers stay text, so that 64 bits
/// survive. What the runtimes bring for this differs, and differs in what it needs.
/// </summary>
internal sealed class Json
{
    internal static readonly Json Nothing = new Json();

    private readonly List<Json> elements = new List<Json>();

    private Json()
    {
    }

    internal string Name { get; private set; }

    /// <summary>A string, or the text of a number or word; null for null.</summary>
    internal string Value { get; private set; }

    /// <summary>Members or items.</summary>
    internal IReadOnlyList<Json> Elements => elements;

    /// <summary>The member of that name, or null.</summary>
    internal Json Element(string name) => elements.FirstOrDefault(member => member.Name == name);

    /// <summary>The member of that name as a number, `otherwise` without one.</summary>
    internal int Whole(string name, int otherwise) =>
        Element(name) is Json number ? (int)number : otherwise;

    /// <summary>As <see cref="Whole"/>.</summary>
    internal ulong Unsigned(string name, ulong otherwise) =>
        Element(name) is Json number ? (ulong)number : otherwise;

    /// <summary>As <see cref="Whole"/>.</summary>
    internal double Real(string name, double otherwise) =>
        Element(name) is Json number ? (double)number : otherwise;

    public static explicit operator double(Json json) =>
        double.Parse(json.Value, CultureInfo.InvariantCulture);

    public static explicit operator ulong(Json json) =>
        ulong.Parse(json.Value, CultureInfo.InvariantCulture);

    public static explicit operator int(Json json) =>
        int.Parse(json.Value, CultureInfo.InvariantCulture);

    internal static Json Read(string path)
    {
        using (var text = new StringReader(File.ReadAllText(path)))
            return new Reader(text).Next(null);
    }

    private sealed class Reader
    {
        private readonly TextReader text;

        internal Reader(TextReader text) => this.text = text;

        internal Json Next(string name)
        {
            var json = new Json { Name = name };
            switch (Peek())
            {
                case '{':
                    Fill(json, '}', () =>
                    {
                        string member = String();
                        Expect(':');
                        return Next(member);
                    });
                    break;
                case '[':
                    Fill(json, ']', () => Next(null));
                    break;
                case '"':
                    json.Value = String();
                    break;
                default:
                    string word = Word();
                    json.Value = word == "null" ? null : word;
                    break;
            }
            return json;
        }

        private void Fill(Json json, char end, Func<Json> element)
        {
            text.Read();
            while (Peek() != end)
            {
                json.elements.Add(element());
                if (Peek() != end)
                    Expect(',');
            }
            text.Read();
        }

        private string String()
        {
            Expect('"');
            var value = new StringBuilder();
            for (char c = Read(); c != '"'; c = Read())
                value.Append(c == '\\' ? Escaped(Read()) : c);
            return value.ToString();
        }

        private static char Escaped(char c) =>
            c == '"' || c == '\\' || c == '/'
                ? c
                : throw new FormatException($"cases.json has an escape that nobody needed yet: {c}");

        private string Word()
        {
            var word = new StringBuilder();
            while (text.Peek() >= 0 && ",]} \n".IndexOf((char)text.Peek()) < 0)
                word.Append(Read());
            return word.Length > 0 ? word.ToString() : throw new FormatException("a value is missing");
        }

        private char Peek()
        {
            while (char.IsWhiteSpace((char)text.Peek()))
                text.Read();
            return (char)text.Peek();
        }

        private char Read()
        {
            int c = text.Read();
            return c >= 0 ? (char)c : throw new FormatException("cases.json ends too early");
        }

        private void Expect(char wanted)
        {
            Peek();
            char c = Read();
            if (c != wanted)
                throw new FormatException($"cases.json has '{c}' instead of '{wanted}'");
        }
    }
}
