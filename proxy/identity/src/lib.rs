//! tulle-identity
