//! tulle-discovery
