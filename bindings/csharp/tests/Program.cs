using System;
using System.Linq;
using System.Reflection;

/// <summary>
/// Runs the tests: every public static method of <see cref="BindingTests"/>, then every case of
/// cases.json. Arguments: the folder of cases.json, a file with what layout.c prints, and "aot" if
/// there is no compiler at run time.
/// </summary>
internal static class Program
{
    internal static string Folder { get; private set; }

    internal static string Layout { get; private set; }

    internal static bool AheadOfTime { get; private set; }

    private static int passed;
    private static int failed;

    private static int Main(string[] args)
    {
        Folder = args[0];
        Layout = args[1];
        AheadOfTime = args.Length > 2 && args[2] == "aot";
        foreach (var test in typeof(BindingTests).GetMethods(BindingFlags.Public | BindingFlags.Static))
            Run(test.Name, (Action)Delegate.CreateDelegate(typeof(Action), test));
        Conformance.RunAll(Run);
        Console.WriteLine($"{passed} passed, {failed} failed");
        return failed == 0 && passed > 0 ? 0 : 1;
    }

    private static void Run(string name, Action test)
    {
        try
        {
            test();
            passed++;
        }
        catch (Exception e)
        {
            failed++;
            Console.WriteLine($"FAILED {name}: {e}");
        }
    }
}
