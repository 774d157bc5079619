using System;
using System.Collections.Generic;
using System.Linq;

/// <summary>What tests claim.</summary>
internal static class Check
{
    internal static void True(bool condition, string claim)
    {
        if (!condition)
            throw new Exception(claim);
    }

    internal static void Same<T>(T got, T expected, string what = "")
    {
        True(EqualityComparer<T>.Default.Equals(got, expected),
            $"{what} is {got}, expected {expected}");
    }

    internal static void SameList<T>(IEnumerable<T> got, IEnumerable<T> expected, string what)
    {
        var missing = expected.Except(got).ToArray();
        var more = got.Except(expected).ToArray();
        True(got.SequenceEqual(expected),
            $"{what}: missing [{string.Join(", ", missing)}], " +
            $"too many [{string.Join(", ", more)}]");
    }

    internal static T Throws<T>(Action action, string what = "") where T : Exception
    {
        try
        {
            action();
        }
        catch (T e)
        {
            return e;
        }
        throw new Exception($"{what} did not throw {typeof(T).Name}");
    }

    internal static void Fails(Dwf.Status status, Action action)
    {
        Same(Throws<Dwf.DwfException>(action, status.ToString()).Status, status);
    }
}
