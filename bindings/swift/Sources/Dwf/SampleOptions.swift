import CDwf

/// What to generate.
///
/// Network `i` of a call depends on `(seed, firstIndex + i)` alone.
public struct SampleOptions: Hashable, Sendable {
    /// Any number, 0 too.
    public var seed: UInt64
    /// Index of the first network.
    public var firstIndex: UInt64
    /// How many networks, 1 or more.
    public var count: Int
    /// `nil`: the artifact's.
    public var solver: Solver?
    /// `nil`: the artifact's.
    public var grid: Grid?
    /// Steps on the grid; `nil`: the artifact's.
    public var steps: Int?
    /// Error a step of ``Solver/dopri5``, 1e-6 to 0.1; `nil`: the artifact's, or 1e-4.
    public var tolerance: Double?
    /// Conditions of ``Model/Info/conditionSize`` numbers each, one after the other: one for all
    /// networks, or one a network. `nil`: unconditional.
    public var condition: [Float]?
    /// Classifier-free guidance scale; 1: the condition alone.
    public var guidance: Double

    public init(
        seed: UInt64 = 0, firstIndex: UInt64 = 0, count: Int = 1, solver: Solver? = nil,
        grid: Grid? = nil, steps: Int? = nil, tolerance: Double? = nil,
        condition: [Float]? = nil, guidance: Double = 1
    ) {
        self.seed = seed
        self.firstIndex = firstIndex
        self.count = count
        self.solver = solver
        self.grid = grid
        self.steps = steps
        self.tolerance = tolerance
        self.condition = condition
        self.guidance = guidance
    }
}

/// How trajectories are integrated, `DWF_SOLVER_*` in C. The list grows, so that a `switch` needs
/// a `default`.
public struct Solver: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt32

    public init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    /// 1 evaluation a step.
    public static let euler = Solver(rawValue: UInt32(DWF_SOLVER_EULER))
    /// Explicit midpoint, 2 evaluations a step.
    public static let midpoint = Solver(rawValue: UInt32(DWF_SOLVER_MIDPOINT))
    /// 2 evaluations a step.
    public static let heun = Solver(rawValue: UInt32(DWF_SOLVER_HEUN))
    /// Classical Runge-Kutta, 4 evaluations a step.
    public static let rk4 = Solver(rawValue: UInt32(DWF_SOLVER_RK4))
    /// Dormand-Prince 5(4), steps chosen for every network from ``SampleOptions/tolerance``.
    public static let dopri5 = Solver(rawValue: UInt32(DWF_SOLVER_DOPRI5))
}

/// Where a solver steps, `DWF_GRID_*` in C. The list grows, so that a `switch` needs a `default`.
public struct Grid: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt32

    public init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    /// Equal steps in time.
    public static let uniform = Grid(rawValue: UInt32(DWF_GRID_UNIFORM))
    /// Steps that grow with time, for a narrow source.
    public static let stretched = Grid(rawValue: UInt32(DWF_GRID_STRETCHED))
}

extension SampleOptions {
    /// The options in C but for what points into memory. A number that C has no room for becomes
    /// the largest, which the library refuses in words.
    var withoutPointers: dwf_sample_options {
        var options = dwf_sample_options()
        options.struct_size = MemoryLayout<dwf_sample_options>.size
        options.seed = seed
        options.first_index = firstIndex
        options.count = count
        options.solver = solver?.rawValue ?? 0
        options.grid = grid?.rawValue ?? 0
        options.steps = steps.map { UInt64(exactly: $0) ?? .max } ?? 0
        options.tolerance = tolerance ?? 0
        options.guidance = guidance
        return options
    }
}
